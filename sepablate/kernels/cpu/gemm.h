// Products of bf16 matrices with fp32 sums, on the processor's matrix unit through ATen's brgemm.
// brgemm wants the right matrix in VNNI layout (two rows interleaved to one row of 32-bit pairs)
// and is fast where all sizes are multiples of 32: blocks of rows are copied and padded with zeros.
#pragma once

#include <ATen/native/CPUBlas.h>

#include "simd.h"

namespace sepablate {

using bf16x2_t = uint32_t;  // a pair of bf16 numbers

constexpr int64_t BLOCK = 64;  // rows that fit into the first cache together with their products

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

// A layer's weight matrix (outputs, inputs) in bf16, padded, and its two VNNI layouts.
struct PackedWeight {
  int64_t outputs, inputs, height, width;
  std::vector<bf16_t> numbers;  // (height, width)

  PackedWeight(const Tensor& matrix, int64_t outputs, int64_t inputs)
      : outputs(outputs), inputs(inputs), height(round_up(outputs)), width(round_up(inputs)),
        numbers(height * width) {
    round_rows(matrix.data_ptr<float>(), inputs, outputs, inputs, numbers.data(), width);
  }
  std::vector<bf16x2_t> forward() const {  // (width / 2, height), for y = x W^T
    std::vector<bf16x2_t> packed(height * width / 2);
    transpose(reinterpret_cast<const bf16x2_t*>(numbers.data()), height, width / 2, packed.data());
    return packed;
  }
  std::vector<bf16x2_t> backward() const {  // (height / 2, width), for dx = dy W
    std::vector<bf16x2_t> packed(height * width / 2);
    pack_vnni(numbers.data(), width, height, width, packed.data());
    return packed;
  }
};

// The rows of a matrix, a block of them at a time. A matrix that is contiguous in memory is read in
// place: the numbers after a row's end, read instead of zeros, are multiplied by zeros of the other
// matrix or go to columns that are not read. Other matrices, and the last rows, after which the
// memory may end, are written by `copy(first, count, to, to_stride)`.
template <class Copy> struct RowBlocks {
  int64_t rows, size, width;
  const bf16_t* contiguous;  // or null
  Copy copy;
  std::vector<bf16_t> buffer;
  const bf16_t* data;  // of the current block
  int64_t stride;

  RowBlocks(int64_t rows, int64_t size, int64_t width, const bf16_t* contiguous, Copy copy)
      : rows(rows), size(size), width(width), contiguous(contiguous), copy(copy),
        buffer(BLOCK * width) {}

  void move_to(int64_t first, int64_t count) {
    if (contiguous && count == BLOCK && (rows - first - count) * size >= width - size) {
      data = contiguous + first * size, stride = size;
      return;
    }
    if (count < BLOCK) std::fill(buffer.begin(), buffer.end(), 0);
    copy(first, count, buffer.data(), width);
    data = buffer.data(), stride = width;
  }
};

// c (m, n) = a b in fp32; a (m, k), b packed. `a` and `copy`: the rows of a, see RowBlocks.
// `store(first, count, c, stride)` gets c a block of rows at a time.
template <class Copy, class Store>
void gemm(int64_t m, int64_t k, int64_t n, const std::vector<bf16x2_t>& b, const bf16_t* a,
          Copy copy, Store store) {
  int64_t depth = round_up(k), columns = round_up(n, 16), ldb = 2 * b.size() / depth;
  RowBlocks rows(m, k, depth, a, copy);
  std::vector<float> c(BLOCK * columns);
  for (int64_t first = 0; first < m; first += BLOCK) {
    int64_t count = std::min(BLOCK, m - first);
    rows.move_to(first, count);
    brgemm(count, columns, depth, rows.data, rows.stride, b.data(), ldb, c.data(), columns);
    store(first, count, c.data(), columns);
  }
  at::native::cpublas::brgemm_release();
}

// c (m, n) = g^T a in fp32, a weight's gradient; g (rows, m) contiguous, a (rows, n). `a` and
// `copy`: the rows of a, see RowBlocks. The name is from BLAS: left matrix transposed, right not.
template <class Copy>
void gemm_tn(int64_t rows, int64_t m, int64_t n, const bf16_t* g, const bf16_t* a, Copy copy,
             float* c) {
  int64_t height = round_up(m, 16), width = round_up(n, 16);
  RowBlocks right(rows, n, width, a, copy);
  RowBlocks left(rows, m, height, g,
                 [=](int64_t first, int64_t count, bf16_t* to, int64_t to_stride) {
                   copy_rows(g + first * m, count, m, to, to_stride);
                 });
  std::vector<bf16x2_t> packed(BLOCK * height / 2), transposed(BLOCK * height / 2);
  std::vector<bf16x2_t> b(BLOCK * width / 2);
  std::vector<float> sums(m * width);
  for (int64_t first = 0; first < rows; first += BLOCK) {
    int64_t count = std::min(BLOCK, rows - first);
    left.move_to(first, count), right.move_to(first, count);
    pack_vnni(left.data, left.stride, BLOCK, height, packed.data());
    transpose(packed.data(), BLOCK / 2, height, transposed.data());
    pack_vnni(right.data, right.stride, BLOCK, width, b.data());
    brgemm(m, width, BLOCK, reinterpret_cast<const bf16_t*>(transposed.data()), BLOCK, b.data(),
           width, sums.data(), width, first > 0);
  }
  at::native::cpublas::brgemm_release();
  for (int64_t i = 0; i < m; i++) std::copy_n(sums.begin() + i * width, n, c + i * n);
}

}  // namespace sepablate
