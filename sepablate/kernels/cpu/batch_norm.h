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

// The sums over pixels that give mean and variance of each channel; pixels come in several calls.
struct Moments {
  int64_t channels, pixels = 0;
  float *shift, *sum, *squares;

  explicit Moments(int64_t channels)
      : channels(channels), shift(scratch<float, MOMENTS>(3 * slots(channels))),
        sum(shift + slots(channels)), squares(sum + slots(channels)) {}

  void add(const bf16_t* from, int64_t count) {
    for_channel_groups(channels, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
      using V = Vec<W>;
      using F32 = typename V::F32;
      F32 offset[N], sums[2 * N];
      for (int k = 0; k < N; k++)
        offset[k] = pixels ? V::load(shift + slot<W>(starts[k])) : V::load(from + starts[k]);
      accumulate(count, sums, [&](int64_t p, F32* total) {
        for (int k = 0; k < N; k++) {
          F32 distance = V::load(from + p * channels + starts[k]) - offset[k];
          total[2 * k] += distance;
          total[2 * k + 1] += distance * distance;
        }
      });
      for (int k = 0; k < N; k++) {
        int64_t at = slot<W>(starts[k]);
        if (!pixels) V::store(shift + at, offset[k]);
        V::store(sum + at, pixels ? V::load(sum + at) + sums[2 * k] : sums[2 * k]);
        V::store(squares + at,
                 pixels ? V::load(squares + at) + sums[2 * k + 1] : sums[2 * k + 1]);
      }
    });
    pixels += count;
  }

  void merge(const Moments& other) {  // of other pixels, with distances to another one
    for (int64_t i = 0; i < slots(channels); i++) {
      float distance = other.shift[i] - shift[i], far = other.pixels * distance;
      squares[i] += other.squares[i] + distance * (2 * other.sum[i] + far);
      sum[i] += other.sum[i] + far;
    }
    pixels += other.pixels;
  }
};

// A batch norm's weights (C,) in fp32 and its hyperparameters.
struct BatchNorm {
  const Tensor &weight, &bias, &running_mean, &running_var;
  double momentum, eps;

  void check(int64_t channels) const {
    TORCH_CHECK(weight.numel() == channels && running_mean.numel() == channels,
                "batch_norm: x has ", channels, " channels, weight ", weight.numel());
  }
};

// The linear map of each channel that a batch norm is, given the sums of its batch.
struct Normalization {
  int64_t channels;
  float *scale, *offset;
  Tensor mean, rstd;  // (C,)

  // Updates the running statistics; running_var is unbiased. `momentum`: this batch's weight.
  Normalization(const BatchNorm& norm, const Moments& moments)
      : channels(moments.channels), scale(scratch<float, AFFINE>(2 * slots(channels))),
        offset(scale + slots(channels)), mean(at::empty({channels}, norm.weight.options())),
        rstd(at::empty_like(mean)) {
    float pixels = moments.pixels, factor = norm.momentum;
    float unbiased = pixels / std::max<float>(pixels - 1, 1);
    std::vector<float> new_mean(channels), new_var(channels);
    for_channel_blocks(channels, [&]<int W>(int64_t start) {
      using V = Vec<W>;
      using F32 = typename V::F32;
      auto at = [&](const Tensor& tensor) { return tensor.data_ptr<float>() + start; };
      int64_t place = slot<W>(start);
      F32 sum = V::load(moments.sum + place), distance = sum / pixels;
      F32 batch_mean = V::load(moments.shift + place) + distance;
      F32 batch_var = (V::load(moments.squares + place) - sum * distance) / pixels;
      batch_var = batch_var <= F32{} ? F32{} : batch_var;
      F32 inverse = batch_var + float(norm.eps);
      for (int lane = 0; lane < W; lane++) inverse[lane] = 1 / std::sqrt(inverse[lane]);
      V::store(at(mean), batch_mean);
      V::store(at(rstd), inverse);
      F32 old_mean = V::load(at(norm.running_mean)), old_var = V::load(at(norm.running_var));
      old_mean += factor * (batch_mean - old_mean);
      old_var += factor * (batch_var * unbiased - old_var);
      V::store(new_mean.data() + start, old_mean);
      V::store(new_var.data() + start, old_var);
      F32 slope = V::load(at(norm.weight)) * inverse;
      V::store(scale + place, slope);
      V::store(offset + place, V::load(at(norm.bias)) - batch_mean * slope);
    });
    // Only now, because blocks of channels may overlap.
    std::copy(new_mean.begin(), new_mean.end(), norm.running_mean.data_ptr<float>());
    std::copy(new_var.begin(), new_var.end(), norm.running_var.data_ptr<float>());
  }

  // to = relu(x scale + offset) + added; the ReLU if `relu`, the addition unless null.
  void apply(const bf16_t* from, int64_t pixels, bool relu, const bf16_t* added, bf16_t* to) const {
    share(pixels, [&](int64_t first, int64_t count) {
      int64_t begin = first * channels;
      apply_to(from + begin, count, relu, added ? added + begin : nullptr, to + begin);
    });
  }

 private:
  void apply_to(const bf16_t* from, int64_t pixels, bool relu, const bf16_t* added,
                bf16_t* to) const {
    for_channel_groups(channels, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
      using V = Vec<W>;
      typename V::F32 slope[N], constant[N];
      for (int k = 0; k < N; k++) {
        slope[k] = V::load(scale + slot<W>(starts[k]));
        constant[k] = V::load(offset + slot<W>(starts[k]));
      }
      for (int64_t p = 0; p < pixels; p++)
        for (int k = 0; k < N; k++) {
          int64_t index = p * channels + starts[k];
          auto value = V::load(from + index) * slope[k] + constant[k];
          if (relu) value = V::relu(value);
          if (added) value += V::load(added + index);
          V::store(to + index, value);
        }
    });
  }
};

// x, residual (N, C, H, W); weight, bias, running_mean, running_var (C,) in fp32 -> y like x, mean
// (C,), rstd (C,). y = relu(batch_norm(x)) + residual. Counts the batch.
inline std::tuple<Tensor, Tensor, Tensor> bn_forward_cpu(
    const Tensor& input, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
    const Tensor& running_var, double momentum, double eps, bool relu,
    const std::optional<Tensor>& residual, const std::optional<Tensor>& num_batches_tracked) {
  check_images("batch_norm", input);
  if (num_batches_tracked) ++*num_batches_tracked->data_ptr<int64_t>();
  Tensor x = channels_last(input), y = empty_channels_last(x, x.sizes());
  int64_t channels = x.size(1), pixels = x.numel() / channels;
  BatchNorm norm{weight, bias, running_mean, running_var, momentum, eps};
  norm.check(channels);
  auto moments = per_thread([&] { return Moments(channels); });
  share(pixels, [&](int64_t first, int64_t count) {
    moments.mine().add(bf16_data(x) + first * channels, count);
  });
  Normalization map(norm, moments.merged());
  Tensor addend = residual ? channels_last(*residual) : Tensor();
  map.apply(bf16_data(x), pixels, relu, residual ? bf16_data(addend) : nullptr, bf16_data(y));
  return {y, map.mean, map.rstd};
}

// Returns only y, for calls that record no gradient.
inline Tensor batch_norm_cpu(
    const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
    const Tensor& running_var, double momentum, double eps, bool relu,
    const std::optional<Tensor>& residual, const std::optional<Tensor>& num_batches_tracked) {
  return std::get<0>(bn_forward_cpu(x, weight, bias, running_mean, running_var, momentum, eps,
                                    relu, residual, num_batches_tracked));
}

// The gradients of a batch norm. With z the gradient after the ReLU and m the number of pixels:
// dx = weight rstd (z - sum(z) / m - (x - mean) rstd^2 sum(z (x - mean)) / m).
struct NormGradient {
  int64_t channels;
  bool relu;
  float *scale, *offset;    // of the batch norm, a linear map
  float *slope, *constant;  // dx = z scale + x slope + constant
  float* center;            // the mean
  Tensor dweight, dbias;

  // x, dy: all `pixels` of the batch norm's input, and of the gradient of its output.
  NormGradient(const Tensor& weight, const Tensor& bias, const Tensor& batch_mean,
               const Tensor& rstd, bool relu, const bf16_t* x, const bf16_t* dy, int64_t pixels)
      : channels(weight.numel()), relu(relu),
        scale(scratch<float, NORM_GRADIENT>(5 * slots(channels))),
        offset(scale + slots(channels)), slope(offset + slots(channels)),
        constant(slope + slots(channels)), center(constant + slots(channels)),
        dweight(at::empty_like(weight)), dbias(at::empty_like(weight)) {
    for_channel_blocks(channels, [&]<int W>(int64_t start) {
      using V = Vec<W>;
      auto at = [&](const Tensor& tensor) { return V::load(tensor.data_ptr<float>() + start); };
      int64_t place = slot<W>(start);
      auto factor = at(weight) * at(rstd);
      V::store(center + place, at(batch_mean));
      V::store(scale + place, factor);
      V::store(offset + place, at(bias) - at(batch_mean) * factor);
    });
    auto sums = per_thread([&] { return Sums(channels); });
    share(pixels, [&](int64_t first, int64_t count) {
      add(x + first * channels, dy + first * channels, count, sums.mine());
    });
    const Sums& all = sums.merged();
    for_channel_blocks(channels, [&]<int W>(int64_t start) {
      using V = Vec<W>;
      int64_t place = slot<W>(start);
      auto inverse = V::load(rstd.data_ptr<float>() + start), factor = V::load(scale + place);
      auto sum = V::load(all.plain + place), product = V::load(all.products + place);
      V::store(dweight.data_ptr<float>() + start, product * inverse);
      V::store(dbias.data_ptr<float>() + start, sum);
      auto decline = -factor * inverse * inverse * product / float(pixels);
      V::store(slope + place, decline);
      V::store(constant + place,
               -factor * sum / float(pixels) - V::load(center + place) * decline);
    });
  }

  // sum(z) and sum(z (x - mean)) of each channel.
  struct Sums {
    int64_t channels;
    float *plain, *products;

    explicit Sums(int64_t channels)
        : channels(channels), plain(scratch<float, NORM_SUMS>(2 * slots(channels))),
          products(plain + slots(channels)) {}

    void merge(const Sums& other) {
      for (int64_t i = 0; i < 2 * slots(channels); i++) plain[i] += other.plain[i];
    }
  };

  void add(const bf16_t* x, const bf16_t* dy, int64_t pixels, const Sums& to) const {
    for_channel_groups(channels, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
      using V = Vec<W>;
      using F32 = typename V::F32;
      F32 middle[N], factor[N], shift[N], sums[2 * N];
      for (int k = 0; k < N; k++) {
        int64_t place = slot<W>(starts[k]);
        middle[k] = V::load(center + place);
        factor[k] = V::load(scale + place), shift[k] = V::load(offset + place);
      }
      accumulate(pixels, sums, [&](int64_t p, F32* sum) {
        for (int k = 0; k < N; k++) {
          int64_t index = p * channels + starts[k];
          F32 value = V::load(x + index);
          F32 z = after_relu<W>(V::load(dy + index), value * factor[k] + shift[k]);
          sum[2 * k] += z;
          sum[2 * k + 1] += z * (value - middle[k]);
        }
      });
      for (int k = 0; k < N; k++) {
        V::store(to.plain + slot<W>(starts[k]), sums[2 * k]);
        V::store(to.products + slot<W>(starts[k]), sums[2 * k + 1]);
      }
    });
  }

  template <int W>
  typename Vec<W>::F32 after_relu(typename Vec<W>::F32 arriving, typename Vec<W>::F32 y) const {
    return relu ? (y <= 0 ? typename Vec<W>::F32{} : arriving) : arriving;
  }

  // Writes dx of some of the pixels to `to`.
  void write(const bf16_t* x, const bf16_t* dy, int64_t pixels, bf16_t* to) const {
    for_channel_groups(channels, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
      using V = Vec<W>;
      typename V::F32 factor[N], shift[N], decline[N], addend[N];
      for (int k = 0; k < N; k++) {
        int64_t place = slot<W>(starts[k]);
        factor[k] = V::load(scale + place), shift[k] = V::load(offset + place);
        decline[k] = V::load(slope + place), addend[k] = V::load(constant + place);
      }
      for (int64_t p = 0; p < pixels; p++)
        for (int k = 0; k < N; k++) {
          int64_t index = p * channels + starts[k];
          auto value = V::load(x + index);
          auto z = after_relu<W>(V::load(dy + index), value * factor[k] + shift[k]);
          V::store(to + index, factor[k] * z + (value * decline[k] + addend[k]));
        }
    });
  }
};

// grad, x (N, C, H, W); weight, bias, mean, rstd (C,) -> the gradients of x, weight and bias.
inline std::tuple<Tensor, Tensor, Tensor> bn_backward_cpu(
    const Tensor& grad, const Tensor& input, const Tensor& weight, const Tensor& bias,
    const Tensor& mean, const Tensor& rstd, bool relu) {
  check_images("bn_backward", input);
  Tensor x = channels_last(input), dy = channels_last(grad);
  Tensor dx = empty_channels_last(x, x.sizes());
  int64_t pixels = x.numel() / x.size(1);
  NormGradient gradient(weight, bias, mean, rstd, relu, bf16_data(x), bf16_data(dy), pixels);
  share(pixels, [&](int64_t first, int64_t count) {
    int64_t begin = first * x.size(1);
    gradient.write(bf16_data(x) + begin, bf16_data(dy) + begin, count, bf16_data(dx) + begin);
  });
  return {dx, gradient.dweight, gradient.dbias};
}

}  // namespace sepablate
