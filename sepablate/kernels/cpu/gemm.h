// Products of bf16 matrices with fp32 sums, on the processor's matrix unit by torch's brgemm. It
// wants the right matrix as pairs of rows, each pair one row of 32-bit numbers, and is fast where
// all sizes are multiples of 32: blocks of rows are copied to where zeros fill them up.
#pragma once

#include <ATen/native/CPUBlas.h>

#include "lanes.h"

using Pair = uint32_t;

constexpr int64_t BLOCK = 64;  // rows that fit into the first cache with what comes of them

inline int64_t padded(int64_t size, int64_t unit = 32) { return (size + unit - 1) / unit * unit; }

// c (rows, columns) = a b, or += where `add`; a (rows, inner), b (inner / 2, columns) in pairs.
inline void multiply(int64_t rows, int64_t columns, int64_t inner, const Half* a, int64_t a_row,
                     const Pair* b, int64_t b_row, float* c, int64_t c_row, bool add = false) {
  using Number = at::BFloat16;
  at::native::cpublas::brgemm(rows, columns, inner, a_row, b_row, c_row, add,
                              reinterpret_cast<const Number*>(a),
                              reinterpret_cast<const Number*>(b), c, true);
}

// Rows 2 i and 2 i + 1 of `from`, which begin `from_row` numbers apart, side by side; `row` numbers
// of each, a multiple of 16.
inline void pair(const Half* from, int64_t from_row, int64_t rows, int64_t row, Pair* to) {
  using L = Lanes<16>;
  for (int64_t i = 0; i < rows; i += 2)
    for (int64_t j = 0; j < row; j += 16, to += 16) {
      const Half* one = from + i * from_row + j;
      L::U both = L::bits(one) | L::bits(one + from_row) << 16;
      std::memcpy(to, &both, sizeof both);
    }
}

template <int STEP> inline void swap(Lanes<16>::U (&tile)[16]) {
  using U = Lanes<16>::U;
  U low, high;
  for (unsigned j = 0; j < 16; j++) {
    low[j] = j & STEP ? 16 + j - STEP : j;
    high[j] = j & STEP ? 16 + j : j + STEP;
  }
  for (int i = 0; i < 16; i++)
    if (!(i & STEP)) {
      U one = tile[i], other = tile[i + STEP];
      tile[i] = __builtin_shuffle(one, other, low);
      tile[i + STEP] = __builtin_shuffle(one, other, high);
    }
}

// (rows, columns) to (columns, rows), multiples of 16.
inline void transpose(const Pair* from, int64_t rows, int64_t columns, Pair* to) {
  Lanes<16>::U tile[16];
  for (int64_t i = 0; i < rows; i += 16)
    for (int64_t j = 0; j < columns; j += 16) {
      for (int k = 0; k < 16; k++) std::memcpy(&tile[k], from + (i + k) * columns + j, 64);
      swap<8>(tile), swap<4>(tile), swap<2>(tile), swap<1>(tile);
      for (int k = 0; k < 16; k++) std::memcpy(to + (j + k) * rows + i, &tile[k], 64);
    }
}

// Rows of `size` numbers to rows that begin `row` numbers apart, in vectors of which the last one
// overlaps the one before.
inline void copy_rows(const Half* from, int64_t rows, int64_t size, Half* to, int64_t row) {
  if (size < 2)
    for (int64_t i = 0; i < rows; i++) to[i * row] = from[i];
  else
    over_groups(size, [&]<int W, int N>(const std::array<int64_t, N>& places) {
      const Half* source = from;
      Half* target = to;
      for (int64_t i = 0; i < rows; i++, source += size, target += row)
        for (int k = 0; k < N; k++)
          std::memcpy(target + places[k], source + places[k], W * sizeof(Half));
    });
}

// Rows of `size` fp32 numbers that begin `from_row` numbers apart to such rows in bf16.
inline void round_rows(const float* from, int64_t from_row, int64_t rows, int64_t size, Half* to,
                       int64_t row) {
  if (size < 2)
    for (int64_t i = 0; i < rows; i++) to[i * row] = rounded(from[i * from_row]);
  else
    over_groups(size, [&]<int W, int N>(const std::array<int64_t, N>& places) {
      const float* source = from;
      Half* target = to;
      for (int64_t i = 0; i < rows; i++, source += from_row, target += row)
        for (int k = 0; k < N; k++)
          Lanes<W>::store(target + places[k], Lanes<W>::load(source + places[k]));
    });
}

// A layer's weights (outputs, inputs) for the product forward, and for that of the gradient.
struct Weights {
  int64_t outputs, inputs, high, wide;
  std::vector<Half> numbers;  // (high, wide)

  Weights(const Tensor& matrix, int64_t outputs, int64_t inputs)
      : outputs(outputs), inputs(inputs), high(padded(outputs)), wide(padded(inputs)),
        numbers(high * wide) {
    round_rows(matrix.data_ptr<float>(), inputs, outputs, inputs, numbers.data(), wide);
  }
  std::vector<Pair> forward() const {  // (wide / 2, high)
    std::vector<Pair> found(high * wide / 2);
    transpose(reinterpret_cast<const Pair*>(numbers.data()), high, wide / 2, found.data());
    return found;
  }
  std::vector<Pair> backward() const {  // (high / 2, wide)
    std::vector<Pair> found(high * wide / 2);
    pair(numbers.data(), wide, high, wide, found.data());
    return found;
  }
};

// Rows of a matrix, a block of them at a time. Where it lies in memory row after row, the product
// reads it there: what follows a row, in place of zeros, meets zeros of the other matrix or comes
// to columns that nobody reads. Other rows, and the last ones, behind which the memory ends, are
// written by `take(first, count, to, row)`; `row`: how far apart they begin.
template <class Take> struct Rows {
  int64_t rows, size, wide;
  const Half* whole;  // or null
  Take take;
  std::vector<Half> copy;
  const Half* at;  // the block
  int64_t row;

  Rows(int64_t rows, int64_t size, int64_t wide, const Half* whole, Take take)
      : rows(rows), size(size), wide(wide), whole(whole), take(take), copy(BLOCK * wide) {}

  void move_to(int64_t first, int64_t count) {
    if (whole && count == BLOCK && (rows - first - count) * size >= wide - size) {
      at = whole + first * size, row = size;
      return;
    }
    if (count < BLOCK) std::fill(copy.begin(), copy.end(), 0);
    take(first, count, copy.data(), wide);
    at = copy.data(), row = wide;
  }
};

// `take` and `whole`: rows of a, see above; `give(first, count, products, row)` gets those of
// a b in fp32; `row`: how far apart they begin.
template <class Take, class Give>
void products(int64_t rows, int64_t inner, int64_t outer, const std::vector<Pair>& b,
              const Half* whole, Take take, Give give) {
  int64_t wide = padded(inner), columns = padded(outer, 16), b_row = 2 * b.size() / wide;
  Rows a(rows, inner, wide, whole, take);
  std::vector<float> c(BLOCK * columns);
  for (int64_t first = 0; first < rows; first += BLOCK) {
    int64_t count = std::min(BLOCK, rows - first);
    a.move_to(first, count);
    multiply(count, columns, wide, a.at, a.row, b.data(), b_row, c.data(), columns);
    give(first, count, c.data(), columns);
  }
  at::native::cpublas::brgemm_release();
}

// The sum over the rows of g^T a, (outer, inner), to `to`: a weight's gradient.
template <class Take>
void correlated(int64_t rows, int64_t outer, int64_t inner, const Half* g, const Half* whole,
                Take take, float* to) {
  int64_t high = padded(outer, 16), wide = padded(inner, 16);
  Rows a(rows, inner, wide, whole, take);
  Rows gradients(rows, outer, high, g,
                 [=](int64_t first, int64_t count, Half* copy, int64_t row) {
                   copy_rows(g + first * outer, count, outer, copy, row);
                 });
  std::vector<Pair> paired(BLOCK * high / 2), turned(BLOCK * high / 2), b(BLOCK * wide / 2);
  std::vector<float> sums(outer * wide);
  for (int64_t first = 0; first < rows; first += BLOCK) {
    int64_t count = std::min(BLOCK, rows - first);
    gradients.move_to(first, count), a.move_to(first, count);
    pair(gradients.at, gradients.row, BLOCK, high, paired.data());
    transpose(paired.data(), BLOCK / 2, high, turned.data());
    pair(a.at, a.row, BLOCK, wide, b.data());
    multiply(outer, wide, BLOCK, reinterpret_cast<const Half*>(turned.data()), BLOCK, b.data(),
             wide, sums.data(), wide, first > 0);
  }
  at::native::cpublas::brgemm_release();
  for (int64_t i = 0; i < outer; i++)
    std::copy_n(sums.begin() + i * wide, inner, to + i * inner);
}
