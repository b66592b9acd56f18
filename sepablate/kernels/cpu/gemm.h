// Products of bf16 matrices with fp32 sums, on the processor's matrix unit through ATen's brgemm.
// brgemm wants the right matrix in VNNI layout (two rows interleaved to one row of 32-bit pairs)
// and is fast where all sizes are multiples of 32.
#pragma once

#include <ATen/native/CPUBlas.h>

#include "simd.h"

namespace sepablate {

using bf16x2_t = uint32_t;  // a pair of bf16 numbers

constexpr int64_t BLOCK = 64;   // rows that fit into the first cache together with their products
constexpr int64_t DEPTH = 128;  // rows that a weight's gradient adds at a time

inline int64_t round_up(int64_t size, int64_t unit = 32) {
  return (size + unit - 1) / unit * unit;
}

// c (m, n) = a b, or += with `add`; a (m, k); b (k / 2, n) in VNNI layout. lda, ldb, ldc: the
// distance between the beginnings of two rows.
inline void brgemm(int64_t m, int64_t n, int64_t k, const bf16_t* a, int64_t lda,
                   const bf16x2_t* b, int64_t ldb, float* c, int64_t ldc, bool add = false) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add,
                              reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c, true);
}

// Interleaves rows 2 i and 2 i + 1 of `from`, of which `columns` numbers count, a multiple of 16.
inline void pack_vnni(const bf16_t* from, int64_t from_stride, int64_t rows, int64_t columns,
                      bf16x2_t* to) {
  using V = Vec<16>;
  for (int64_t i = 0; i < rows; i += 2)
    for (int64_t j = 0; j < columns; j += 16, to += 16) {
      const bf16_t* even = from + i * from_stride + j;
      V::U32 pairs = V::load_bits(even) | V::load_bits(even + from_stride) << 16;
      std::memcpy(to, &pairs, sizeof pairs);
    }
}

// Swaps the off-diagonal STEP x STEP blocks of each 2 STEP x 2 STEP block.
template <int STEP> inline void swap_blocks(Vec<16>::U32 (&tile)[16]) {
  using U32 = Vec<16>::U32;
  U32 low, high;
  for (unsigned j = 0; j < 16; j++) {
    low[j] = j & STEP ? 16 + j - STEP : j;
    high[j] = j & STEP ? 16 + j : j + STEP;
  }
  for (int i = 0; i < 16; i++)
    if (!(i & STEP)) {
      U32 upper = tile[i], lower = tile[i + STEP];
      tile[i] = __builtin_shuffle(upper, lower, low);
      tile[i + STEP] = __builtin_shuffle(upper, lower, high);
    }
}

// (rows, columns) to (columns, rows), both multiples of 16.
inline void transpose(const bf16x2_t* from, int64_t rows, int64_t columns, bf16x2_t* to) {
  Vec<16>::U32 tile[16];
  for (int64_t i = 0; i < rows; i += 16)
    for (int64_t j = 0; j < columns; j += 16) {
      for (int k = 0; k < 16; k++) std::memcpy(&tile[k], from + (i + k) * columns + j, 64);
      swap_blocks<8>(tile), swap_blocks<4>(tile), swap_blocks<2>(tile), swap_blocks<1>(tile);
      for (int k = 0; k < 16; k++) std::memcpy(to + (j + k) * rows + i, &tile[k], 64);
    }
}

// Copies contiguous rows of `size` numbers to rows `to_stride` numbers apart.
inline void copy_rows(const bf16_t* from, int64_t rows, int64_t size, bf16_t* to,
                      int64_t to_stride) {
  if (size < 2)
    for (int64_t i = 0; i < rows; i++) to[i * to_stride] = from[i];
  else
    for_channel_groups(size, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
      const bf16_t* source = from;
      bf16_t* target = to;
      for (int64_t i = 0; i < rows; i++, source += size, target += to_stride)
        for (int k = 0; k < N; k++)
          std::memcpy(target + starts[k], source + starts[k], W * sizeof(bf16_t));
    });
}

// Rounds fp32 rows of `size` numbers, `from_stride` numbers apart, to such rows in bf16.
inline void round_rows(const float* from, int64_t from_stride, int64_t rows, int64_t size,
                       bf16_t* to, int64_t to_stride) {
  if (size < 2)
    for (int64_t i = 0; i < rows; i++) to[i * to_stride] = round_to_bf16(from[i * from_stride]);
  else
    for_channel_groups(size, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
      const float* source = from;
      bf16_t* target = to;
      for (int64_t i = 0; i < rows; i++, source += from_stride, target += to_stride)
        for (int k = 0; k < N; k++)
          Vec<W>::store(target + starts[k], Vec<W>::load(source + starts[k]));
    });
}

// A matrix (depth, columns) in VNNI layout, padded with zeros; its rows are `stride` pairs apart.
struct PackedMatrix {
  const bf16x2_t* data;
  int64_t depth, stride;
};

// A layer's weight matrix (outputs, inputs) in bf16, padded, and its two VNNI layouts. A thread has
// memory for one of them.
struct PackedWeight {
  int64_t height, width;
  bf16_t* numbers;  // (height, width)

  PackedWeight(int64_t outputs, int64_t inputs)  // of zeros
      : height(round_up(outputs)), width(round_up(inputs)),
        numbers(scratch<bf16_t, WEIGHT>(height * width)) {
    std::memset(numbers, 0, height * width * sizeof(bf16_t));
  }
  PackedWeight(const float* matrix, int64_t outputs, int64_t inputs)
      : PackedWeight(outputs, inputs) {
    round_rows(matrix, inputs, outputs, inputs, numbers, width);
  }
  PackedMatrix forward() const {  // for y = x W^T
    auto* packed = scratch<bf16x2_t, PACKED>(height * width / 2);
    transpose(reinterpret_cast<const bf16x2_t*>(numbers), height, width / 2, packed);
    return {packed, width, height};
  }
  PackedMatrix backward() const {  // for dx = dy W
    auto* packed = scratch<bf16x2_t, PACKED>(height * width / 2);
    pack_vnni(numbers, width, height, width, packed);
    return {packed, height, width};
  }
};

// The rows of a matrix (rows, size), a block of them at a time. A matrix that is contiguous in
// memory is read in place: the numbers after a row's end, read instead of zeros, are multiplied by
// zeros of the other matrix or go to columns that are not read. Other matrices, and rows after
// which the memory may end, are written by `copy(first, count, to, to_stride)`, which may write up
// to 31 numbers after a row.
template <class Copy> struct Rows {
  int64_t size;
  const bf16_t* contiguous;  // or null
  int64_t readable;          // how many rows of `contiguous` lie in memory
  Copy copy;

  // Returns `count` rows of `width` numbers and the distance between two, if need be in `buffer`.
  // If `padded` is more than `count`, rows of zeros follow.
  std::pair<const bf16_t*, int64_t> block(int64_t first, int64_t count, int64_t width,
                                          bf16_t* buffer, int64_t padded = 0) const {
    if (contiguous && count >= padded && (readable - first - count) * size >= width - size)
      return {contiguous + first * size, size};
    copy(first, count, buffer, width);
    for (int64_t i = 0; i < count && size < width; i++)
      std::memset(buffer + i * width + size, 0, (width - size) * sizeof(bf16_t));
    if (count < padded)
      std::memset(buffer + count * width, 0, (padded - count) * width * sizeof(bf16_t));
    return {buffer, width};
  }
};

// The rows of a matrix that is contiguous in memory.
inline auto contiguous_rows(const bf16_t* from, int64_t size, int64_t readable) {
  auto copy = [=](int64_t first, int64_t count, bf16_t* to, int64_t to_stride) {
    copy_rows(from + first * size, count, size, to, to_stride);
  };
  return Rows<decltype(copy)>{size, from, readable, copy};
}

// c (m, n) = a b in fp32; a (m, k), b packed. `store(first, count, c, stride)` gets c a block of
// rows at a time.
template <class Copy, class Store>
void gemm(int64_t m, int64_t n, const Rows<Copy>& a, const PackedMatrix& b, Store store) {
  int64_t columns = round_up(n, 16);
  bf16_t* buffer = scratch<bf16_t, ROWS>(BLOCK * b.depth);
  float* c = scratch<float, PRODUCTS>(BLOCK * columns);
  for (int64_t first = 0; first < m; first += BLOCK) {
    int64_t count = std::min(BLOCK, m - first);
    auto [data, stride] = a.block(first, count, b.depth, buffer);
    brgemm(count, columns, b.depth, data, stride, b.data, b.stride, c, columns);
    store(first, count, c, columns);
  }
}

// c (m, n) += g^T a in fp32, a weight's gradient; g (rows, m), a (rows, n), in several calls.
struct WeightGradient {
  int64_t m, n, width;
  float* sums;
  bool started = false;

  WeightGradient(int64_t m, int64_t n)
      : m(m), n(n), width(round_up(n, 16)), sums(scratch<float, SUMS>(m * width)) {}

  template <class Left, class Right>
  void add(int64_t rows, const Rows<Left>& g, const Rows<Right>& a) {
    int64_t height = round_up(m, 16), most = std::min(DEPTH, round_up(rows));
    bf16_t* buffers[] = {scratch<bf16_t, LEFT>(most * height), scratch<bf16_t, ROWS>(most * width)};
    auto* packed = scratch<bf16x2_t, LEFT>(most * height / 2);
    auto* transposed = scratch<bf16x2_t, TRANSPOSED>(most * height / 2);
    auto* b = scratch<bf16x2_t, RIGHT>(most * width / 2);
    for (int64_t first = 0; first < rows; first += DEPTH) {
      int64_t count = std::min(DEPTH, rows - first), depth = round_up(count);
      auto [left, left_stride] = g.block(first, count, height, buffers[0], depth);
      auto [right, right_stride] = a.block(first, count, width, buffers[1], depth);
      pack_vnni(left, left_stride, depth, height, packed);
      transpose(packed, depth / 2, height, transposed);
      pack_vnni(right, right_stride, depth, width, b);
      brgemm(m, width, depth, reinterpret_cast<const bf16_t*>(transposed), depth, b, width, sums,
             width, started);
      started = true;
    }
  }

  void merge(const WeightGradient& other) {
    if (!other.started) return;
    for (int64_t i = 0; i < m * width; i++) sums[i] += other.sums[i];
  }

  void write(float* to) const {
    for (int64_t i = 0; i < m; i++) std::copy_n(sums + i * width, n, to + i * n);
  }
};

}  // namespace sepablate
