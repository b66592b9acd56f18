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

// The backward pass: the gradient of x to `to`, that of the taps added to `sums`.
template <int SIZE>
void depthwise_small_backward(const Vec<16>::F32 (&tap)[9], Vec<16>::F32 (&sums)[9],
                              const bf16_t* from, const bf16_t* grad, bf16_t* to, int64_t images,
                              int64_t channels, bool relu) {
  using F32 = Vec<16>::F32;
  F32 sum[9];
  for (int k = 0; k < 9; k++) sum[k] = sums[k];
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

// The sizes of images and of their depthwise convolution.
struct DepthwiseShape {
  int64_t channels, height, width, stride, out_height, out_width;

  DepthwiseShape(const Tensor& x, int64_t stride)
      : channels(x.size(1)), height(x.size(2)), width(x.size(3)), stride(stride),
        out_height((height - 1) / stride + 1), out_width((width - 1) / stride + 1) {}

  bool small(int64_t size) const { return stride == 1 && height == size && width == size; }
};

inline const float* transpose_taps(const Tensor& weight) {  // (C, 9) to (9, C)
  int64_t channels = weight.size(0);
  Tensor contiguous = weight.contiguous();
  const float* from = contiguous.data_ptr<float>();
  float* taps = scratch<float, TAPS>(9 * channels);
  for (int64_t channel = 0; channel < channels; channel++)
    for (int k = 0; k < 9; k++) taps[k * channels + channel] = from[channel * 9 + k];
  return taps;
}

// The forward pass of some images. `taps`: of transpose_taps; bias (C,) or null.
inline void depthwise_images(const DepthwiseShape& shape, const float* taps, const float* bias,
                             bool relu, bool relu_after, const bf16_t* x, int64_t images,
                             bf16_t* y) {
  int64_t channels = shape.channels, pixels = shape.height * shape.width;
  for_channel_blocks(channels, [&]<int W>(int64_t start) {
    using V = Vec<W>;
    typename V::F32 tap[9];
    for (int k = 0; k < 9; k++) tap[k] = V::load(taps + k * channels + start);
    typename V::F32 offset = bias ? V::load(bias + start) : typename V::F32{};
    const bf16_t* from = x + start;
    bf16_t* to = y + start;
    if constexpr (W == 16) {
      if (shape.small(4))
        return depthwise_small<4>(tap, offset, from, to, images, channels, relu, relu_after);
      if (shape.small(2))
        return depthwise_small<2>(tap, offset, from, to, images, channels, relu, relu_after);
    }
    PaddedImage<W, PADDED> image(shape.height, shape.width);
    for (int64_t n = 0; n < images; n++, from += pixels * channels) {
      image.fill(from, channels, relu);
      for (int64_t i = 0; i < shape.out_height; i++)
        for (int64_t j = 0; j < shape.out_width; j++, to += channels) {
          auto* window = image.at(i * shape.stride - 1, j * shape.stride - 1);
          typename V::F32 sum = offset;
          for (int k = 0; k < 9; k++) sum += tap[k] * window[k / 3 * image.row_stride + k % 3];
          V::store(to, relu_after ? V::relu(sum) : sum);
        }
    }
  });
}

// The gradient of the taps: sums over the pixels of all images, which come in several calls.
struct TapGradients {
  int64_t channels;
  float* sums;  // (9, slots)

  explicit TapGradients(int64_t channels)
      : channels(channels), sums(scratch<float, TAP_GRADIENTS>(9 * slots(channels))) {
    std::memset(sums, 0, 9 * slots(channels) * sizeof(float));
  }

  void merge(const TapGradients& other) {
    for (int64_t i = 0; i < 9 * slots(channels); i++) sums[i] += other.sums[i];
  }

  void write(float* to) const {  // (C, 1, 3, 3)
    for_channel_blocks(channels, [&]<int W>(int64_t start) {
      for (int k = 0; k < 9; k++)
        for (int lane = 0; lane < W; lane++)
          to[(start + lane) * 9 + k] = sums[k * slots(channels) + slot<W>(start) + lane];
    });
  }
};

// The backward pass of some images: dx to `to`, the taps' gradient added to `gradients`.
inline void depthwise_backward_images(const DepthwiseShape& shape, const float* taps, bool relu,
                                      const bf16_t* x, const bf16_t* dy, int64_t images,
                                      bf16_t* dx, const TapGradients& gradients) {
  int64_t channels = shape.channels, pixels = shape.height * shape.width;
  int64_t out_pixels = shape.out_height * shape.out_width;
  for_channel_blocks(channels, [&]<int W>(int64_t start) {
    using V = Vec<W>;
    typename V::F32 tap[9], sum[9];
    auto total = [&](int k) { return gradients.sums + k * slots(channels) + slot<W>(start); };
    for (int k = 0; k < 9; k++) {
      tap[k] = V::load(taps + (8 - k) * channels + start);
      sum[k] = V::load(total(k));
    }
    const bf16_t *from = x + start, *arriving = dy + start;
    bf16_t* to = dx + start;
    bool done = false;
    if constexpr (W == 16) {
      if ((done = shape.small(4)))
        depthwise_small_backward<4>(tap, sum, from, arriving, to, images, channels, relu);
      else if ((done = shape.small(2)))
        depthwise_small_backward<2>(tap, sum, from, arriving, to, images, channels, relu);
    }
    if (!done) {
      PaddedImage<W, PADDED> in(shape.height, shape.width);
      PaddedImage<W, PADDED_GRADIENT> out(shape.height, shape.width);
      for (int64_t n = 0; n < images; n++) {
        in.fill(from + n * pixels * channels, channels, relu);
        out.fill(arriving + n * out_pixels * channels, channels, false, shape.stride);
        for (int64_t i = 0; i < shape.height; i++)
          for (int64_t j = 0; j < shape.width; j++, to += channels) {
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
    }
    for (int k = 0; k < 9; k++) V::store(total(k), sum[k]);
  });
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
  DepthwiseShape shape(x, stride);
  Tensor y = empty_channels_last(x, {x.size(0), x.size(1), shape.out_height, shape.out_width});
  const float *taps = transpose_taps(weight), *offsets = bias ? bias->data_ptr<float>() : nullptr;
  share(x.size(0), [&](int64_t first, int64_t count) {
    depthwise_images(shape, taps, offsets, relu, relu_after, bf16_data(x) + first * x.stride(0),
                     count, bf16_data(y) + first * y.stride(0));
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
  auto gradients = per_thread([&] { return TapGradients(x.size(1)); });
  const float* taps = transpose_taps(weight);
  share(x.size(0), [&](int64_t first, int64_t count) {
    int64_t begin = first * x.stride(0);
    depthwise_backward_images(DepthwiseShape(x, stride), taps, relu, bf16_data(x) + begin,
                              bf16_data(dy) + first * dy.stride(0), count, bf16_data(dx) + begin,
                              gradients.mine());
  });
  Tensor dweight = at::empty_like(weight, at::MemoryFormat::Contiguous);
  gradients.merged().write(dweight.data_ptr<float>());
  return {dx, dweight};
}

}  // namespace sepablate
