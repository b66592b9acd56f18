// Depthwise 3x3 convolution with a padding of one pixel, after an optional ReLU.
#pragma once

#include <optional>
#include <tuple>

#include "simd.h"

namespace sepablate {

// Tap k of the 3x3 window around a pixel of a SIZE x SIZE image: whether it lies in the image, and
// its index. Both are known at compile time where all loops over them are unrolled.
template <int SIZE> constexpr bool in_bounds(int pixel, int k) {
  int i = pixel / SIZE + k / 3 - 1, j = pixel % SIZE + k % 3 - 1;
  return 0 <= i && i < SIZE && 0 <= j && j < SIZE;
}

template <int SIZE> constexpr int neighbour(int pixel, int k) {
  return pixel + (k / 3 - 1) * SIZE + k % 3 - 1;
}

// One image's block of channels, SIZE x SIZE pixels, kept in registers.
template <int W, int SIZE> struct SmallImage {
  using V = Vec<W>;
  typename V::F32 pixels[SIZE * SIZE];

  SmallImage(const bf16_t* from, int64_t channels, bool relu) {
    for (int p = 0; p < SIZE * SIZE; p++) {
      auto value = V::load(from + p * channels);
      pixels[p] = relu ? V::relu(value) : value;
    }
  }
};

// The forward pass of all images for 16 channels.
template <int SIZE>
void depthwise_small(const Vec<16>::F32 (&tap)[9], Vec<16>::F32 bias, const bf16_t* from,
                     bf16_t* to, int64_t images, int64_t channels, bool relu, bool relu_after) {
  using F32 = Vec<16>::F32;
  for (int64_t n = 0; n < images; n++, from += SIZE * SIZE * channels) {
    SmallImage<16, SIZE> in(from, channels, relu);
#pragma GCC unroll 16
    for (int p = 0; p < SIZE * SIZE; p++, to += channels) {
      F32 sum = bias;
#pragma GCC unroll 9
      for (int k = 0; k < 9; k++)
        if (in_bounds<SIZE>(p, k)) sum += tap[k] * in.pixels[neighbour<SIZE>(p, k)];
      Vec<16>::store(to, relu_after ? Vec<16>::relu(sum) : sum);
    }
  }
}

// The backward pass: the gradient of x to `to`, that of the taps to `sums`.
template <int SIZE>
void depthwise_small_backward(const Vec<16>::F32 (&tap)[9], Vec<16>::F32 (&sums)[9],
                              const bf16_t* from, const bf16_t* grad, bf16_t* to, int64_t images,
                              int64_t channels, bool relu) {
  using F32 = Vec<16>::F32;
  F32 sum[9] = {};
  for (int64_t n = 0; n < images; n++) {
    SmallImage<16, SIZE> in(from, channels, relu), out(grad, channels, false);
    from += SIZE * SIZE * channels, grad += SIZE * SIZE * channels;
#pragma GCC unroll 16
    for (int p = 0; p < SIZE * SIZE; p++, to += channels) {
      F32 gradient{}, center = out.pixels[p];
#pragma GCC unroll 9
      for (int k = 0; k < 9; k++)
        if (in_bounds<SIZE>(p, k)) {
          gradient += tap[k] * out.pixels[neighbour<SIZE>(p, k)];
          sum[k] += center * in.pixels[neighbour<SIZE>(p, k)];
        }
      if (relu) gradient = in.pixels[p] <= 0 ? F32{} : gradient;
      Vec<16>::store(to, gradient);
    }
  }
  for (int k = 0; k < 9; k++) sums[k] = sum[k];
}

inline std::vector<float> transpose_taps(const Tensor& weight) {  // (C, 9) to (9, C)
  int64_t channels = weight.size(0);
  Tensor contiguous = weight.contiguous();
  const float* from = contiguous.data_ptr<float>();
  std::vector<float> taps(9 * channels);
  for (int64_t channel = 0; channel < channels; channel++)
    for (int k = 0; k < 9; k++) taps[k * channels + channel] = from[channel * 9 + k];
  return taps;
}

inline void check_depthwise(const char* name, const Tensor& x, const Tensor& weight,
                            int64_t stride) {
  check_images(name, x);
  TORCH_CHECK(weight.numel() == 9 * x.size(1) && weight.size(0) == x.size(1), name,
              ": weight must be (", x.size(1), ", 1, 3, 3), not ", weight.sizes());
  TORCH_CHECK(stride >= 1, name, ": stride must be at least 1, not ", stride);
}

// x (N, C, H, W), weight (C, 1, 3, 3) in fp32 -> (N, C, ceil(H / stride), ceil(W / stride)).
// For inference the bias (C) of a batch norm and a ReLU may follow.
inline Tensor depthwise_inference_cpu(const Tensor& input, const Tensor& weight,
                                      const std::optional<Tensor>& bias, int64_t stride, bool relu,
                                      bool relu_after) {
  check_depthwise("depthwise", input, weight, stride);
  Tensor x = channels_last(input);
  int64_t images = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  int64_t out_height = (height - 1) / stride + 1, out_width = (width - 1) / stride + 1;
  Tensor y = empty_channels_last(x, {images, channels, out_height, out_width});
  std::vector<float> taps = transpose_taps(weight);
  for_channel_blocks(channels, [&]<int W>(int64_t start) {
    using V = Vec<W>;
    typename V::F32 tap[9];
    for (int k = 0; k < 9; k++) tap[k] = V::load(taps.data() + k * channels + start);
    typename V::F32 offset = bias ? V::load(bias->data_ptr<float>() + start) : typename V::F32{};
    bf16_t* to = bf16_data(y) + start;
    if constexpr (W == 16) {
      const bf16_t* from = bf16_data(x) + start;
      if (stride == 1 && height == 4 && width == 4)
        return depthwise_small<4>(tap, offset, from, to, images, channels, relu, relu_after);
      if (stride == 1 && height == 2 && width == 2)
        return depthwise_small<2>(tap, offset, from, to, images, channels, relu, relu_after);
    }
    PaddedImage<W> image(height, width);
    for (int64_t n = 0; n < images; n++) {
      image.fill(bf16_data(x) + n * height * width * channels + start, channels, relu);
      for (int64_t i = 0; i < out_height; i++)
        for (int64_t j = 0; j < out_width; j++, to += channels) {
          auto* window = image.at(i * stride - 1, j * stride - 1);
          typename V::F32 sum = offset;
          for (int k = 0; k < 9; k++) sum += tap[k] * window[k / 3 * image.row_stride + k % 3];
          V::store(to, relu_after ? V::relu(sum) : sum);
        }
    }
  });
  return y;
}

inline Tensor depthwise_cpu(const Tensor& x, const Tensor& weight, int64_t stride, bool relu) {
  return depthwise_inference_cpu(x, weight, std::nullopt, stride, relu, false);
}

// grad (N, C, H', W'), x (N, C, H, W), weight (C, 1, 3, 3) -> the gradients of x and weight.
inline std::tuple<Tensor, Tensor> depthwise_backward_cpu(const Tensor& grad, const Tensor& input,
                                                         const Tensor& weight, int64_t stride,
                                                         bool relu) {
  check_depthwise("depthwise_backward", input, weight, stride);
  Tensor x = channels_last(input), dy = channels_last(grad);
  Tensor dx = empty_channels_last(x, x.sizes());
  int64_t images = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  int64_t out_pixels = dy.size(2) * dy.size(3);
  std::vector<float> taps = transpose_taps(weight), dtaps(9 * channels);
  for_channel_blocks(channels, [&]<int W>(int64_t start) {
    using V = Vec<W>;
    typename V::F32 tap[9], sum[9] = {};
    for (int k = 0; k < 9; k++)
      tap[k] = V::load(taps.data() + (8 - k) * channels + start);
    bf16_t* to = bf16_data(dx) + start;
    bool done = false;
    if constexpr (W == 16) {
      const bf16_t *from = bf16_data(x) + start, *arriving = bf16_data(dy) + start;
      if ((done = stride == 1 && height == 4 && width == 4))
        depthwise_small_backward<4>(tap, sum, from, arriving, to, images, channels, relu);
      else if ((done = stride == 1 && height == 2 && width == 2))
        depthwise_small_backward<2>(tap, sum, from, arriving, to, images, channels, relu);
    }
    PaddedImage<W> in(height, width), out(height, width);
    for (int64_t n = 0; n < (done ? 0 : images); n++) {
      in.fill(bf16_data(x) + n * height * width * channels + start, channels, relu);
      out.fill(bf16_data(dy) + n * out_pixels * channels + start, channels, false, stride);
      for (int64_t i = 0; i < height; i++)
        for (int64_t j = 0; j < width; j++, to += channels) {
          auto *p = in.at(i - 1, j - 1), *q = out.at(i - 1, j - 1);
          auto center = q[in.row_stride + 1], value = p[in.row_stride + 1];
          typename V::F32 gradient{};
          for (int k = 0; k < 9; k++) {
            int64_t offset = k / 3 * in.row_stride + k % 3;
            gradient += tap[k] * q[offset];
            sum[k] += center * p[offset];
          }
          if (relu) gradient = value <= 0 ? typename V::F32{} : gradient;
          V::store(to, gradient);
        }
    }
    for (int k = 0; k < 9; k++) V::store(dtaps.data() + k * channels + start, sum[k]);
  });
  Tensor dweight = at::empty_like(weight, at::MemoryFormat::Contiguous);
  for (int64_t channel = 0; channel < channels; channel++)
    for (int k = 0; k < 9; k++)
      dweight.data_ptr<float>()[channel * 9 + k] = dtaps[k * channels + channel];
  return {dx, dweight};
}

}  // namespace sepablate
