// Vectors of channels, and how to walk over them. Activations are bf16 in channels_last memory, all
// sums fp32. Every kernel walks over blocks of channels that fill a vector, and for each block over
// the pixels, in one order, so that equal inputs give equal bits. The last block overlaps the one
// before where the vectors do not divide the channels. The compiler's vector types serve every
// processor.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <cstring>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <vector>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;
using Half = uint16_t;

// GCC takes no vector whose length is a parameter of a template: each length is named.
template <int W> struct Vectors;
#define VECTORS(W)                                            \
  template <> struct Vectors<W> {                             \
    typedef float F __attribute__((vector_size(4 * W)));      \
    typedef int32_t I __attribute__((vector_size(4 * W)));    \
    typedef uint32_t U __attribute__((vector_size(4 * W)));   \
    typedef uint16_t H __attribute__((vector_size(2 * W)));   \
    typedef uint8_t B __attribute__((vector_size(W)));        \
  };
VECTORS(16) VECTORS(8) VECTORS(4) VECTORS(2)

template <int W> struct Lanes : Vectors<W> {
  using typename Vectors<W>::F, typename Vectors<W>::U, typename Vectors<W>::H;

  static U bits(const Half* from) {
    H found;
    std::memcpy(&found, from, sizeof found);
    return __builtin_convertvector(found, U);
  }
  static F load(const Half* from) { return (F)(bits(from) << 16); }
  static void store(Half* to, F value) {  // rounded to the nearest, ties to even
#ifdef __AVX512BF16__
    if constexpr (W == 16) {
      auto half = _mm512_cvtneps_pbh((__m512)value);
      return void(std::memcpy(to, &half, sizeof half));
    }
#endif
    U bits = (U)value;
    U rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    rounded = value == value ? rounded : U{} + 0x7fc0u;
    H half = __builtin_convertvector(rounded, H);
    std::memcpy(to, &half, sizeof half);
  }
  static F load(const float* from) {
    F value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  static void store(float* to, F value) { std::memcpy(to, &value, sizeof value); }
  static F relu(F value) { return value <= F{} ? F{} : value; }  // a NaN stays
};

template <int W, class Body> void blocks(int64_t channels, Body body) {
  for (int64_t first = 0; first < channels; first += W)
    body.template operator()<W>(std::min(first, channels - W));
}

template <class Body> void over_channels(int64_t channels, Body body) {
  if (channels >= 16) blocks<16>(channels, body);
  else if (channels >= 8) blocks<8>(channels, body);
  else if (channels >= 4) blocks<4>(channels, body);
  else blocks<2>(channels, body);
}

// Calls body<W, N>(places) for groups of N blocks, whose rows a kernel reads side by side: a group
// fits into registers with its sums. `places`: the first channel of each block.
template <int W, int N, class Body>
void group(int64_t channels, int64_t first, int64_t count, Body& body) {
  if (count < N) {
    if constexpr (N > 1) group<W, N - 1>(channels, first, count, body);
    return;
  }
  std::array<int64_t, N> places;
  for (int k = 0; k < N; k++) places[k] = std::min(first + k * W, channels - W);
  body.template operator()<W, N>(places);
}

template <int W, int MOST, class Body> void groups(int64_t channels, Body& body) {
  int64_t left = (channels + W - 1) / W;
  for (int64_t first = 0, count; left > 0; left -= count, first += count * W) {
    count = left > MOST ? std::min<int64_t>(MOST, (left + 1) / 2) : left;
    group<W, MOST>(channels, first, count, body);
  }
}

template <class Body> void over_groups(int64_t channels, Body body) {
  if (channels >= 16) groups<16, 6>(channels, body);
  else if (channels >= 8) groups<8, 2>(channels, body);
  else if (channels >= 4) groups<4, 2>(channels, body);
  else groups<2, 2>(channels, body);
}

// Adds up body(0) ... body(count - 1), for few sums in four chains that need not wait for each
// other. A body adds one term to each of the SUMS that it is given.
template <int SUMS, class F, class Body>
inline void add_up(int64_t count, F (&total)[SUMS], Body body) {
  constexpr int CHAINS = SUMS > 4 ? 1 : 4;
  F chains[CHAINS][SUMS] = {};
  int64_t p = 0;
  for (; p + CHAINS <= count; p += CHAINS)
    for (int chain = 0; chain < CHAINS; chain++) body(p + chain, chains[chain]);
  for (; p < count; p++) body(p, chains[0]);
  for (int k = 0; k < SUMS; k++) {
    total[k] = chains[0][k];
    if constexpr (CHAINS == 4) total[k] = (total[k] + chains[1][k]) + (chains[2][k] + chains[3][k]);
  }
}

inline Half rounded(float value) { return at::BFloat16(value).x; }

inline float single(Half bits) {
  uint32_t whole = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &whole, sizeof value);
  return value;
}

inline Half* half(const Tensor& tensor) { return static_cast<Half*>(tensor.data_ptr()); }

// Calls of torch inside a kernel take the short way, past its autograd.
using Below = at::AutoDispatchBelowADInplaceOrView;

inline Tensor last(const Tensor& tensor) {
  if (tensor.scalar_type() == at::kBFloat16 && tensor.is_contiguous(at::MemoryFormat::ChannelsLast))
    return tensor;
  return tensor.to(at::kBFloat16).contiguous(at::MemoryFormat::ChannelsLast);
}

inline Tensor like(const Tensor& model, at::IntArrayRef sizes) {
  return at::empty(sizes, model.options().dtype(at::kBFloat16), at::MemoryFormat::ChannelsLast);
}

// One image's block of channels in fp32, with a border of one pixel.
template <int W> struct Map {
  using L = Lanes<W>;
  using F = typename L::F;
  int64_t high, wide, row;
  std::vector<F> pixels;

  Map(int64_t high, int64_t wide, float border = 0)
      : high(high), wide(wide), row(wide + 2), pixels((high + 2) * row, F{} + border) {}

  F* at(int64_t i, int64_t j) { return &pixels[(i + 1) * row + j + 1]; }

  // Every stride-th pixel gets one of the tensor's; the others keep what they had.
  void fill(const Half* from, int64_t channels, bool relu, int64_t stride = 1) {
    for (int64_t i = 0; i < high; i += stride)
      for (int64_t j = 0; j < wide; j += stride, from += channels) {
        F value = L::load(from);
        *at(i, j) = relu ? L::relu(value) : value;
      }
  }
};
