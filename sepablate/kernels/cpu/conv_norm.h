// A convolution and its batch norm in one operator; a 1x1 convolution possibly after a depthwise
// one: a separable convolution. A few images are taken through all steps at a time, so that each
// step finds in the cache what the step before it wrote.
#pragma once

#include <tuple>

#include "batch_norm.h"
#include "convolution.h"
#include "depthwise.h"

namespace sepablate {

using OptionalTensor = std::optional<Tensor>;

inline void check_conv_norm(const Tensor& x, const OptionalTensor& depthwise, const Tensor& weight,
                            int64_t stride, const ConvShape& shape) {
  check_convolution("conv_norm", x, weight, stride);
  TORCH_CHECK(weight.size(0) >= 2, "conv_norm: at least 2 outputs, not ", weight.size(0));
  if (!depthwise) return;
  check_depthwise("conv_norm", x, *depthwise, 1);
  TORCH_CHECK(shape.pointwise(), "conv_norm: after a depthwise convolution a 1x1 one, not ",
              weight.sizes(), " with stride ", stride);
}

inline void relu_rows(bf16_t* gradient, const bf16_t* y, int64_t count) {  // 0 where y is
  for (int64_t i = 0; i < count; i++) gradient[i] = y[i] ? gradient[i] : 0;
}

// x (N, C, H, W), depthwise (C, 1, 3, 3) or none, weight (O, C, h, w), the batch norm's tensors
// (O,) in fp32, residual like y -> y (N, O, H', W'); between (N, C, H, W), the convolution's input
// if there is a depthwise one, else of no element; convolved like y; mean and rstd (O,).
// relu_first, relu_between: before and after the depthwise convolution; relu: after the batch norm,
// before the residual is added.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> conv_norm_forward_cpu(
    const Tensor& input, const OptionalTensor& depthwise, const Tensor& weight, int64_t stride,
    int64_t padding_height, int64_t padding_width, bool relu_first, bool relu_between,
    const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& running_mean,
    const Tensor& running_var, double momentum, double eps, bool relu,
    const OptionalTensor& residual, const OptionalTensor& num_batches_tracked) {
  Tensor x = channels_last(input);
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  check_conv_norm(x, depthwise, weight, stride, shape);
  BatchNorm norm{norm_weight, norm_bias, running_mean, running_var, momentum, eps};
  norm.check(shape.outputs);
  if (num_batches_tracked) ++*num_batches_tracked->data_ptr<int64_t>();
  int64_t outputs = shape.outputs;
  Tensor between = depthwise ? empty_channels_last(x, x.sizes()) : at::empty({0}, x.options());
  Tensor convolved =
      empty_channels_last(x, {shape.images, outputs, shape.out_height, shape.out_width});
  const float* taps = depthwise ? transpose_taps(*depthwise) : nullptr;
  PackedMatrix packed = pack_weight(weight).forward();
  auto moments = per_thread([&] { return Moments(outputs); });
  shape.for_groups([&](int64_t n, int64_t count) {
    int64_t begin = n * shape.pixels() * shape.inputs;
    const bf16_t* from = bf16_data(x) + begin;
    int64_t readable = (shape.images - n) * shape.pixels();
    if (depthwise) {
      bf16_t* spatial = bf16_data(between) + begin;
      depthwise_images(DepthwiseShape(x, 1), taps, nullptr, relu_first, relu_between, from, count,
                       spatial);
      from = spatial, readable = count * shape.pixels();  // the next images are not written yet
    }
    bf16_t* to = bf16_data(convolved) + n * shape.out_pixels() * outputs;
    Moments& sums = moments.mine();
    convolve(shape.part(count), packed, from, readable,
             [&](int64_t first, int64_t rows, const float* products, int64_t stride) {
               round_rows(products, stride, rows, outputs, to + first * outputs, outputs);
               sums.add(to + first * outputs, rows);
             });
  });
  Normalization map(norm, moments.merged());
  Tensor y = at::empty_like(convolved), addend = residual ? channels_last(*residual) : Tensor();
  map.apply(bf16_data(convolved), shape.images * shape.out_pixels(), relu,
            residual ? bf16_data(addend) : nullptr, bf16_data(y));
  return {y, between, convolved, map.mean, map.rstd};
}

// Returns only y, for calls that record no gradient.
inline Tensor conv_norm_cpu(
    const Tensor& x, const OptionalTensor& depthwise, const Tensor& weight, int64_t stride,
    int64_t padding_height, int64_t padding_width, bool relu_first, bool relu_between,
    const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& running_mean,
    const Tensor& running_var, double momentum, double eps, bool relu,
    const OptionalTensor& residual, const OptionalTensor& num_batches_tracked) {
  return std::get<0>(conv_norm_forward_cpu(
      x, depthwise, weight, stride, padding_height, padding_width, relu_first, relu_between,
      norm_weight, norm_bias, running_mean, running_var, momentum, eps, relu, residual,
      num_batches_tracked));
}

// grad like y, and what the forward pass took and returned -> the gradients of x, depthwise,
// weight, and the batch norm's weight and bias. That of x has no element if neither `input_grad`
// nor a depthwise convolution needs it, that of depthwise if there is none.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> conv_norm_backward_cpu(
    const Tensor& grad, const Tensor& input, const OptionalTensor& depthwise, const Tensor& weight,
    const Tensor& between, const Tensor& convolved, const Tensor& norm_weight,
    const Tensor& norm_bias, const Tensor& mean, const Tensor& rstd, int64_t stride,
    int64_t padding_height, int64_t padding_width, bool relu_first, bool relu_between, bool relu,
    bool input_grad) {
  Tensor x = channels_last(input), dy = channels_last(grad);
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  check_conv_norm(x, depthwise, weight, stride, shape);
  int64_t outputs = shape.outputs, inputs = shape.inputs, out = shape.out_pixels();
  NormGradient norm(norm_weight, norm_bias, mean, rstd, relu, bf16_data(convolved), bf16_data(dy),
                    shape.images * out);
  bool through = input_grad || depthwise;  // whether gradients go on through the convolution
  Tensor dx = through ? empty_channels_last(x, x.sizes()) : at::empty({0}, x.options());
  auto weight_gradients = per_thread([&] { return WeightGradient(outputs, shape.patch_size()); });
  std::optional<InputGradient> input_gradient;
  if (through) input_gradient.emplace(shape, weight);
  const float* taps = depthwise ? transpose_taps(*depthwise) : nullptr;
  auto tap_gradients = per_thread([&] { return TapGradients(depthwise ? inputs : 0); });
  shape.for_groups([&](int64_t n, int64_t count) {
    int64_t begin = n * shape.pixels() * inputs, offset = n * out * outputs;
    int64_t readable = (shape.images - n) * shape.pixels(), pixels = count * shape.pixels();
    bf16_t* gradient = scratch<bf16_t, GRADIENT>(count * out * outputs + 32);
    norm.write(bf16_data(convolved) + offset, bf16_data(dy) + offset, count * out, gradient);
    std::memset(gradient + count * out * outputs, 0, 64);  // read after the last row's end
    int64_t gradient_rows = count * out + 32;
    const bf16_t* from = bf16_data(depthwise ? between : x) + begin;
    weight_gradients.mine().add(count * out, contiguous_rows(gradient, outputs, gradient_rows),
                                patches(shape.part(count), from, readable));
    if (!through) return;
    bf16_t* to = depthwise ? scratch<bf16_t, GRADIENT_BETWEEN>(pixels * inputs)
                           : bf16_data(dx) + begin;
    input_gradient->write(gradient, gradient_rows, count, to);
    if (!depthwise) return;
    if (relu_between) relu_rows(to, from, pixels * inputs);
    depthwise_backward_images(DepthwiseShape(x, 1), taps, relu_first, bf16_data(x) + begin, to,
                              count, bf16_data(dx) + begin, tap_gradients.mine());
  });
  Tensor dweight = at::empty_like(weight, at::MemoryFormat::ChannelsLast);
  weight_gradients.merged().write(dweight.data_ptr<float>());
  Tensor dtaps = depthwise ? at::empty_like(*depthwise, at::MemoryFormat::Contiguous)
                           : at::empty({0}, weight.options());
  if (depthwise) tap_gradients.merged().write(dtaps.data_ptr<float>());
  return {dx, dtaps, dweight, norm.dweight, norm.dbias};
}

}  // namespace sepablate
