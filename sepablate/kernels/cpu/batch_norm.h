// Batch norm with the statistics of the batch, followed by an optional ReLU or addition.
//
// The variance is computed in one pass from the distances to the first pixel's value ("shifted
// data"), so that a large mean costs no accuracy: Chan, Golub and LeVeque, "Updating formulae and a
// pairwise algorithm for computing sample variances", 1979.
#pragma once

#include <cmath>
#include <tuple>

#include "simd.h"

namespace sepablate {

// x, residual (N, C, H, W); weight, bias, running_mean, running_var (C,) in fp32 -> y like x, mean
// (C,), rstd (C,). y = relu(batch_norm(x)) + residual. Updates the running statistics and counts
// the batch; running_var is unbiased, and `momentum` is the weight of this batch.
inline std::tuple<Tensor, Tensor, Tensor> bn_forward_cpu(
    const Tensor& input, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
    const Tensor& running_var, double momentum, double eps, bool relu,
    const std::optional<Tensor>& residual, const std::optional<Tensor>& num_batches_tracked) {
  check_images("batch_norm", input);
  if (num_batches_tracked) ++*num_batches_tracked->data_ptr<int64_t>();
  Tensor x = channels_last(input), y = empty_channels_last(x, x.sizes());
  int64_t channels = x.size(1), pixels = x.numel() / channels;
  TORCH_CHECK(weight.numel() == channels && running_mean.numel() == channels,
              "batch_norm: x has ", channels, " channels, weight ", weight.numel());
  Tensor mean = at::empty({channels}, weight.options()), rstd = at::empty_like(mean);
  std::vector<float> new_mean(channels), new_var(channels);
  Tensor addend = residual ? channels_last(*residual) : Tensor();
  float factor = momentum, unbiased = float(pixels) / std::max<int64_t>(pixels - 1, 1);
  for_channel_groups(channels, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
    using V = Vec<W>;
    using F32 = typename V::F32;
    const bf16_t* from = bf16_data(x);
    F32 shift[N], scale[N], offset[N], sums[2 * N];
    for (int k = 0; k < N; k++) shift[k] = V::load(from + starts[k]);
    accumulate(pixels, sums, [&](int64_t p, F32* sum) {
      for (int k = 0; k < N; k++) {
        F32 distance = V::load(from + p * channels + starts[k]) - shift[k];
        sum[2 * k] += distance;
        sum[2 * k + 1] += distance * distance;
      }
    });
    for (int k = 0; k < N; k++) {
      auto at = [&](const Tensor& tensor) { return tensor.data_ptr<float>() + starts[k]; };
      F32 distance = sums[2 * k] / float(pixels), batch_mean = shift[k] + distance;
      F32 batch_var = (sums[2 * k + 1] - sums[2 * k] * distance) / float(pixels);
      batch_var = batch_var <= F32{} ? F32{} : batch_var;
      F32 inverse = batch_var + float(eps);
      for (int lane = 0; lane < W; lane++) inverse[lane] = 1 / std::sqrt(inverse[lane]);
      V::store(at(mean), batch_mean);
      V::store(at(rstd), inverse);
      F32 old_mean = V::load(at(running_mean)), old_var = V::load(at(running_var));
      old_mean += factor * (batch_mean - old_mean);
      old_var += factor * (batch_var * unbiased - old_var);
      V::store(new_mean.data() + starts[k], old_mean);
      V::store(new_var.data() + starts[k], old_var);
      scale[k] = V::load(at(weight)) * inverse;
      offset[k] = V::load(at(bias)) - batch_mean * scale[k];
    }
    bf16_t* to = bf16_data(y);
    const bf16_t* added = residual ? bf16_data(addend) : nullptr;
    for (int64_t p = 0; p < pixels; p++)
      for (int k = 0; k < N; k++) {
        int64_t index = p * channels + starts[k];
        F32 value = V::load(from + index) * scale[k] + offset[k];
        if (relu) value = V::relu(value);
        if (added) value += V::load(added + index);
        V::store(to + index, value);
      }
  });
  // Only now, because blocks of channels may overlap.
  std::copy(new_mean.begin(), new_mean.end(), running_mean.data_ptr<float>());
  std::copy(new_var.begin(), new_var.end(), running_var.data_ptr<float>());
  return {y, mean, rstd};
}

// Returns only y, for calls that record no gradient.
inline Tensor batch_norm_cpu(
    const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
    const Tensor& running_var, double momentum, double eps, bool relu,
    const std::optional<Tensor>& residual, const std::optional<Tensor>& num_batches_tracked) {
  return std::get<0>(bn_forward_cpu(x, weight, bias, running_mean, running_var, momentum, eps,
                                    relu, residual, num_batches_tracked));
}

// grad, x (N, C, H, W); weight, bias, mean, rstd (C,) -> the gradients of x, weight and bias. With
// z the gradient after the ReLU and m the number of pixels:
// dx = weight rstd (z - sum(z) / m - (x - mean) rstd^2 sum(z (x - mean)) / m).
inline std::tuple<Tensor, Tensor, Tensor> bn_backward_cpu(
    const Tensor& grad, const Tensor& input, const Tensor& weight, const Tensor& bias,
    const Tensor& mean, const Tensor& rstd, bool relu) {
  check_images("bn_backward", input);
  Tensor x = channels_last(input), dy = channels_last(grad);
  Tensor dx = empty_channels_last(x, x.sizes());
  Tensor dweight = at::empty_like(weight), dbias = at::empty_like(weight);
  int64_t channels = x.size(1), pixels = x.numel() / channels;
  for_channel_groups(channels, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
    using V = Vec<W>;
    using F32 = typename V::F32;
    const bf16_t *from = bf16_data(x), *gradient = bf16_data(dy);
    F32 batch_mean[N], scale[N], offset[N], sums[2 * N], slope[N], constant[N];
    auto for_blocks = [&](auto body) {
      for (int k = 0; k < N; k++)
        body(k, [&](const Tensor& tensor) { return tensor.data_ptr<float>() + starts[k]; });
    };
    for_blocks([&](int k, auto at) {
      batch_mean[k] = V::load(at(mean));
      scale[k] = V::load(at(weight)) * V::load(at(rstd));
      offset[k] = V::load(at(bias)) - batch_mean[k] * scale[k];
    });
    auto after_relu = [&](int64_t index, F32 value, int k) {
      F32 arriving = V::load(gradient + index);
      return relu ? (value * scale[k] + offset[k] <= 0 ? F32{} : arriving) : arriving;
    };
    accumulate(pixels, sums, [&](int64_t p, F32* sum) {
      for (int k = 0; k < N; k++) {
        int64_t index = p * channels + starts[k];
        F32 value = V::load(from + index), z = after_relu(index, value, k);
        sum[2 * k] += z;
        sum[2 * k + 1] += z * (value - batch_mean[k]);
      }
    });
    for_blocks([&](int k, auto at) {
      F32 inverse = V::load(at(rstd)), sum = sums[2 * k], product = sums[2 * k + 1];
      V::store(at(dweight), product * inverse);
      V::store(at(dbias), sum);
      slope[k] = -scale[k] * inverse * inverse * product / float(pixels);
      constant[k] = -scale[k] * sum / float(pixels) - batch_mean[k] * slope[k];
    });
    bf16_t* to = bf16_data(dx);
    for (int64_t p = 0; p < pixels; p++)
      for (int k = 0; k < N; k++) {
        int64_t index = p * channels + starts[k];
        F32 value = V::load(from + index), z = after_relu(index, value, k);
        V::store(to + index, scale[k] * z + (value * slope[k] + constant[k]));
      }
  });
  return {dx, dweight, dbias};
}

}  // namespace sepablate
