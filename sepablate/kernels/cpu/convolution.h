// Convolution as one matrix product: of the pixels themselves if it is 1x1 with stride 1, otherwise
// of patches (im2col), a block of them at a time.
#pragma once

#include <algorithm>
#include <optional>

#include "gemm.h"

namespace sepablate {

struct ConvShape {
  int64_t images, inputs, height, width;  // of the input
  int64_t kernel_height, kernel_width, stride, padding_height, padding_width;
  int64_t out_height, out_width;

  ConvShape(const Tensor& x, at::IntArrayRef weight, int64_t stride, int64_t padding_height,
            int64_t padding_width)
      : images(x.size(0)), inputs(x.size(1)), height(x.size(2)), width(x.size(3)),
        kernel_height(weight[2]), kernel_width(weight[3]), stride(stride),
        padding_height(padding_height), padding_width(padding_width),
        out_height((height + 2 * padding_height - kernel_height) / stride + 1),
        out_width((width + 2 * padding_width - kernel_width) / stride + 1) {}

  bool pointwise() const {
    return kernel_height * kernel_width * stride == 1 && padding_height + padding_width == 0;
  }
  int64_t out_pixels() const { return images * out_height * out_width; }
  int64_t patch_size() const { return kernel_height * kernel_width * inputs; }

  // Calls body(begin, pixel, length) for the part that lies in the image of each row of an output
  // pixel's patch: its offset in the patch, its offset in the images, its length.
  template <class Body> void for_patch_rows(int64_t out_pixel, Body body) const {
    uint32_t line = uint32_t(out_pixel) / uint32_t(out_width), j = out_pixel - line * out_width;
    uint32_t n = line / uint32_t(out_height), i = line - n * out_height;
    int64_t x = int64_t(j) * stride - padding_width;
    int64_t skip = std::max<int64_t>(0, -x), end = std::min(kernel_width, width - x);
    if (skip >= end) return;
    for (int64_t k = 0; k < kernel_height; k++) {
      int64_t y = int64_t(i) * stride + k - padding_height;
      if (0 <= y && y < height)
        body((k * kernel_width + skip) * inputs, ((n * height + y) * width + x + skip) * inputs,
             (end - skip) * inputs);
    }
  }

  const bf16_t* contiguous(const bf16_t* from) const { return pointwise() ? from : nullptr; }

  // Returns the function that writes the patches of `count` output pixels, for RowBlocks.
  auto im2col(const bf16_t* from) const {
    return [this, from](int64_t first, int64_t count, bf16_t* to, int64_t to_stride) {
      if (pointwise()) return copy_rows(from + first * inputs, count, inputs, to, to_stride);
      for (int64_t pixel = first; pixel < first + count; pixel++, to += to_stride) {
        std::fill(to, to + patch_size(), 0);
        for_patch_rows(pixel, [&](int64_t begin, int64_t offset, int64_t length) {
          copy_rows(from + offset, 1, length, to + begin, 0);
        });
      }
    };
  }
};

inline PackedWeight pack_weight(const Tensor& weight) {  // (O, I, H, W) as (O, H W I)
  int64_t outputs = weight.size(0), inputs = weight.numel() / outputs;
  return {weight.contiguous(at::MemoryFormat::ChannelsLast), outputs, inputs};
}

inline void check_convolution(const char* name, const Tensor& x, const Tensor& weight,
                              int64_t stride) {
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.size(1) == weight.size(1), name,
              ": x must be (N, C, H, W) and weight (O, C, h, w), not ", x.sizes(), " and ",
              weight.sizes());
  TORCH_CHECK(stride >= 1, name, ": stride must be at least 1, not ", stride);
}

// x (N, C, H, W), weight (O, C, h, w) in fp32 -> (N, O, H', W'),
// H' = (H + 2 padding_height - h) / stride + 1.
inline Tensor convolution_cpu(const Tensor& input, const Tensor& weight, int64_t stride,
                              int64_t padding_height, int64_t padding_width) {
  check_convolution("convolution", input, weight, stride);
  Tensor x = channels_last(input);
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  int64_t outputs = weight.size(0);
  Tensor y = empty_channels_last(x, {shape.images, outputs, shape.out_height, shape.out_width});
  bf16_t* to = bf16_data(y);
  gemm(shape.out_pixels(), shape.patch_size(), outputs, pack_weight(weight).forward(),
       shape.contiguous(bf16_data(x)), shape.im2col(bf16_data(x)),
       [&](int64_t first, int64_t count, const float* products, int64_t stride) {
         round_rows(products, stride, count, outputs, to + first * outputs, outputs);
       });
  return y;
}

// Writes fp32 rows of `size` numbers, `from_stride` numbers apart, plus the bias and the residual's
// contiguous rows, to contiguous rows in bf16, after a ReLU if `relu`.
inline void finish_rows(const float* from, int64_t from_stride, int64_t rows, int64_t size,
                        const float* bias, const bf16_t* residual, bool relu, bf16_t* to) {
  for_channel_groups(size, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
    using V = Vec<W>;
    typename V::F32 offset[N];
    for (int k = 0; k < N; k++) offset[k] = V::load(bias + starts[k]);
    for (int64_t i = 0; i < rows; i++)
      for (int k = 0; k < N; k++) {
        auto sum = V::load(from + i * from_stride + starts[k]) + offset[k];
        if (residual) sum += V::load(residual + i * size + starts[k]);
        V::store(to + i * size + starts[k], relu ? V::relu(sum) : sum);
      }
  });
}

// The convolution of `convolution_cpu` plus bias (O) in fp32 and residual (N, O, H', W'), then a
// ReLU if `relu`; O is at least 2. Without gradients.
inline Tensor convolution_inference_cpu(const Tensor& input, const Tensor& weight,
                                        const Tensor& bias, const std::optional<Tensor>& residual,
                                        int64_t stride, int64_t padding_height,
                                        int64_t padding_width, bool relu) {
  check_convolution("convolution_inference", input, weight, stride);
  Tensor x = channels_last(input);
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  int64_t outputs = weight.size(0);
  TORCH_CHECK(outputs >= 2 && bias.numel() == outputs, "convolution_inference: bias must be (",
              outputs, "), of at least 2, not ", bias.sizes());
  Tensor y = empty_channels_last(x, {shape.images, outputs, shape.out_height, shape.out_width});
  TORCH_CHECK(!residual || residual->sizes() == y.sizes(), "convolution_inference: residual must be ",
              y.sizes());
  Tensor added = residual ? channels_last(*residual) : Tensor();
  gemm(shape.out_pixels(), shape.patch_size(), outputs, pack_weight(weight).forward(),
       shape.contiguous(bf16_data(x)), shape.im2col(bf16_data(x)),
       [&](int64_t first, int64_t count, const float* products, int64_t stride) {
         int64_t offset = first * outputs;
         finish_rows(products, stride, count, outputs, bias.data_ptr<float>(),
                     residual ? bf16_data(added) + offset : nullptr, relu, bf16_data(y) + offset);
       });
  return y;
}

// grad (N, O, H', W'), x (N, C, H, W), weight (O, C, h, w) -> the gradient of weight.
inline Tensor convolution_weight_grad_cpu(const Tensor& grad, const Tensor& input,
                                          const Tensor& weight, int64_t stride,
                                          int64_t padding_height, int64_t padding_width) {
  check_convolution("convolution_weight_grad", input, weight, stride);
  Tensor x = channels_last(input), dy = channels_last(grad);
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  Tensor dweight = at::empty_like(weight, at::MemoryFormat::ChannelsLast);
  gemm_tn(shape.out_pixels(), weight.size(0), shape.patch_size(), bf16_data(dy),
          shape.contiguous(bf16_data(x)), shape.im2col(bf16_data(x)), dweight.data_ptr<float>());
  return dweight;
}

// grad (N, O, H', W'), x (N, C, H, W), weight (O, C, h, w) -> the gradient of x. Of x only the
// shape is read.
inline Tensor convolution_input_grad_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                         int64_t stride, int64_t padding_height,
                                         int64_t padding_width) {
  check_convolution("convolution_input_grad", x, weight, stride);
  Tensor dy = channels_last(grad);
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  int64_t outputs = weight.size(0);
  const bf16_t* from = bf16_data(dy);
  bool overlapping = !shape.pointwise();  // two outputs may have an input in common
  Tensor sums = overlapping ? at::zeros({x.numel()}, at::kFloat) : Tensor();
  Tensor dx = empty_channels_last(x, x.sizes());
  gemm(shape.out_pixels(), outputs, shape.patch_size(), pack_weight(weight).backward(), from,
       [&](int64_t first, int64_t count, bf16_t* to, int64_t to_stride) {
         copy_rows(from + first * outputs, count, outputs, to, to_stride);
       },
       [&](int64_t first, int64_t count, const float* products, int64_t stride) {
         if (!overlapping)
           return round_rows(products, stride, count, shape.inputs,
                             bf16_data(dx) + first * shape.inputs, shape.inputs);
         float* to = sums.data_ptr<float>();
         for (int64_t pixel = first; pixel < first + count; pixel++, products += stride)
           shape.for_patch_rows(pixel, [&](int64_t begin, int64_t offset, int64_t length) {
             for (int64_t k = 0; k < length; k++) to[offset + k] += products[begin + k];
           });
       });
  if (overlapping) round_rows(sums.data_ptr<float>(), 0, 1, sums.numel(), bf16_data(dx), 0);
  return dx;
}

}  // namespace sepablate
