// Vectors of channels, and loops over them. Activations are bf16 in channels_last memory; all sums
// are fp32. Every kernel loops over blocks of channels that fill a vector and, for each block, over
// the pixels, in a fixed order, so that equal inputs give equal bits. Threads share the images, or
// the pixels; their sums are added in the threads' order, so that bits depend on their number. If
// the vector length does not divide the number of channels, the last block overlaps the one before.
// GCC's vector extensions compile on every processor.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <cstdlib>
#include <cstring>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <memory>
#include <optional>
#include <vector>

namespace sepablate {

using at::Tensor;
using bf16_t = uint16_t;  // the bits of a bfloat16

// GCC cannot take a vector's length from a template parameter: each length is spelled out.
template <int W> struct VecTypes;
#define SEPABLATE_VEC_TYPES(W)                                \
  template <> struct VecTypes<W> {                            \
    typedef float F32 __attribute__((vector_size(4 * W)));    \
    typedef int32_t I32 __attribute__((vector_size(4 * W)));  \
    typedef uint32_t U32 __attribute__((vector_size(4 * W))); \
    typedef uint16_t U16 __attribute__((vector_size(2 * W))); \
    typedef uint8_t U8 __attribute__((vector_size(W)));       \
  };
SEPABLATE_VEC_TYPES(16) SEPABLATE_VEC_TYPES(8) SEPABLATE_VEC_TYPES(4) SEPABLATE_VEC_TYPES(2)
#undef SEPABLATE_VEC_TYPES

// Loads, stores and the ReLU of W numbers.
template <int W> struct Vec : VecTypes<W> {
  using typename VecTypes<W>::F32, typename VecTypes<W>::U32, typename VecTypes<W>::U16;

  static U32 load_bits(const bf16_t* from) {
    U16 bits;
    std::memcpy(&bits, from, sizeof bits);
    return __builtin_convertvector(bits, U32);
  }
  static F32 load(const bf16_t* from) { return (F32)(load_bits(from) << 16); }
  static void store(bf16_t* to, F32 value) {  // round to nearest, ties to even
#ifdef __AVX512BF16__
    if constexpr (W == 16) {
      auto rounded = _mm512_cvtneps_pbh((__m512)value);
      return void(std::memcpy(to, &rounded, sizeof rounded));
    }
#endif
    U32 bits = (U32)value;
    U32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    rounded = value == value ? rounded : U32{} + 0x7fc0u;
    U16 narrow = __builtin_convertvector(rounded, U16);
    std::memcpy(to, &narrow, sizeof narrow);
  }
  static F32 load(const float* from) {
    F32 value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  static void store(float* to, F32 value) { std::memcpy(to, &value, sizeof value); }
  static F32 relu(F32 value) { return value <= F32{} ? F32{} : value; }  // propagates NaN
};

template <int W, class Body> void channel_blocks(int64_t channels, Body body) {
  for (int64_t start = 0; start < channels; start += W)
    body.template operator()<W>(std::min(start, channels - W));
}

// Calls body<W>(start) for each block of W channels; at least 2 channels.
template <class Body> void for_channel_blocks(int64_t channels, Body body) {
  if (channels >= 16) channel_blocks<16>(channels, body);
  else if (channels >= 8) channel_blocks<8>(channels, body);
  else if (channels >= 4) channel_blocks<4>(channels, body);
  else channel_blocks<2>(channels, body);
}

template <int W, int N, class Body>
void channel_group(int64_t channels, int64_t first, int64_t count, Body& body) {
  if (count < N) {
    if constexpr (N > 1) channel_group<W, N - 1>(channels, first, count, body);
    return;
  }
  std::array<int64_t, N> starts;
  for (int k = 0; k < N; k++) starts[k] = std::min(first + k * W, channels - W);
  body.template operator()<W, N>(starts);
}

template <int W, int MAX, class Body> void channel_groups(int64_t channels, Body& body) {
  int64_t remaining = (channels + W - 1) / W;
  for (int64_t first = 0, count; remaining > 0; remaining -= count, first += count * W) {
    count = remaining > MAX ? std::min<int64_t>(MAX, (remaining + 1) / 2) : remaining;
    channel_group<W, MAX>(channels, first, count, body);
  }
}

// Calls body<W, N>(starts) for each group of N blocks of W channels that a kernel reads together;
// a group and its sums fit into the registers. `starts`: the first channel of each block.
template <class Body> void for_channel_groups(int64_t channels, Body body) {
  if (channels >= 16) channel_groups<16, 6>(channels, body);
  else if (channels >= 8) channel_groups<8, 2>(channels, body);
  else if (channels >= 4) channel_groups<4, 2>(channels, body);
  else channel_groups<2, 2>(channels, body);
}

// Adds up body(0) ... body(count - 1). Each call adds one term to each of SUMS sums; up to four
// sums are split into four independent chains, so that additions need not wait for each other.
template <int SUMS, class F32, class Body>
inline void accumulate(int64_t count, F32 (&total)[SUMS], Body body) {
  constexpr int CHAINS = SUMS > 4 ? 1 : 4;
  F32 chains[CHAINS][SUMS] = {};
  int64_t p = 0;
  for (; p + CHAINS <= count; p += CHAINS)
    for (int chain = 0; chain < CHAINS; chain++) body(p + chain, chains[chain]);
  for (; p < count; p++) body(p, chains[0]);
  for (int k = 0; k < SUMS; k++) {
    total[k] = chains[0][k];
    if constexpr (CHAINS == 4) total[k] = (total[k] + chains[1][k]) + (chains[2][k] + chains[3][k]);
  }
}

// Where the numbers of a block of W channels lie in an array in which no blocks overlap, and how
// long such an array is.
template <int W> int64_t slot(int64_t start) { return (start + W - 1) / W * W; }
inline int64_t slots(int64_t channels) { return channels / 16 * 16 + 32; }

// What a thread's memory is used for at one time.
enum Use {
  WEIGHT, PACKED, IMAGES, ROWS, PRODUCTS, LEFT, TRANSPOSED, RIGHT, SUMS, SCATTERED,  // products
  PADDED, PADDED_GRADIENT, TAPS, TAP_GRADIENTS,  // depthwise convolutions and pools
  MOMENTS, AFFINE, NORM_GRADIENT, NORM_SUMS,     // batch norm
  GRADIENT, GRADIENT_BETWEEN,                    // between the steps of a backward pass
};

// Memory of this thread for one use, kept for the next call, so that a step allocates none. It has
// at least `count` numbers, and 64 more that may be read; all are what was last written there.
template <class T, Use USE> T* scratch(int64_t count) {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  static thread_local std::unique_ptr<void, Free> memory;
  static thread_local int64_t size = 0;
  int64_t bytes = ((count + 64) * int64_t(sizeof(T)) + 63) / 64 * 64;
  if (bytes > size) {
    memory.reset();
    memory.reset(std::aligned_alloc(64, bytes));
    TORCH_CHECK(memory, "no memory for ", bytes, " bytes");
    std::memset(memory.get(), 0, bytes);  // bits that are no NaN
    size = bytes;
  }
  return static_cast<T*>(memory.get());
}

// Calls body(first, count) in PyTorch's threads, each for its share of the images or pixels. Shares
// depend on the number of threads alone; of one thread it is all.
template <class Body> void share(int64_t count, Body body) {
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) { body(begin, end - begin); });
}

// What each thread adds up by itself, in memory of its own, until `merged` adds the threads' parts
// in their order.
template <class T, class Make> struct PerThread {
  Make make;
  std::vector<std::optional<T>> parts;

  explicit PerThread(Make make) : make(make), parts(at::get_num_threads()) {}

  T& mine() {
    std::optional<T>& part = parts[at::get_thread_num()];
    if (!part) part.emplace(make());
    return *part;
  }
  T& merged() {
    T& total = mine();
    for (auto& part : parts)
      if (part && &*part != &total) total.merge(*part);
    return total;
  }
};
template <class Make> auto per_thread(Make make) {
  return PerThread<decltype(make()), Make>(make);
}

inline bf16_t round_to_bf16(float value) { return at::BFloat16(value).x; }

inline bf16_t* bf16_data(const Tensor& tensor) { return static_cast<bf16_t*>(tensor.data_ptr()); }

// The tensor (N, C, H, W) in bf16 and channels_last memory: itself where it is so already.
inline Tensor channels_last(const Tensor& tensor) {
  if (tensor.scalar_type() == at::kBFloat16 && tensor.is_contiguous(at::MemoryFormat::ChannelsLast))
    return tensor;
  return tensor.to(at::kBFloat16).contiguous(at::MemoryFormat::ChannelsLast);
}

inline Tensor empty_channels_last(const Tensor& like, at::IntArrayRef sizes) {
  return at::empty(sizes, like.options().dtype(at::kBFloat16), at::MemoryFormat::ChannelsLast);
}

// Raises unless `x` is (N, C, H, W) with at least 2 channels, the shortest vector.
inline void check_images(const char* name, const Tensor& x) {
  TORCH_CHECK(x.dim() == 4 && x.size(1) >= 2, name,
              ": x must be (N, C, H, W) with at least 2 channels, not ", x.sizes());
}

// One image's block of channels in fp32, padded by one pixel on each side.
template <int W, Use USE> struct PaddedImage {
  using V = Vec<W>;
  using F32 = typename V::F32;
  int64_t height, width, row_stride;
  F32* pixels;

  PaddedImage(int64_t height, int64_t width, float padding_value = 0)
      : height(height), width(width), row_stride(width + 2),
        pixels(reinterpret_cast<F32*>(scratch<float, USE>((height + 2) * row_stride * W))) {
    clear(padding_value);
  }

  void clear(float value = 0) {
    std::fill(pixels, pixels + (height + 2) * row_stride, F32{} + value);
  }

  F32* at(int64_t i, int64_t j) { return &pixels[(i + 1) * row_stride + j + 1]; }

  // Reads consecutive pixels of `from` into every stride-th pixel; the others stay as they are.
  void fill(const bf16_t* from, int64_t channels, bool relu, int64_t stride = 1) {
    for (int64_t i = 0; i < height; i += stride)
      for (int64_t j = 0; j < width; j += stride, from += channels) {
        F32 value = V::load(from);
        *at(i, j) = relu ? V::relu(value) : value;
      }
  }
};

}  // namespace sepablate
