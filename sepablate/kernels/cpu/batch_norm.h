// Batch norm with the statistics of the batch, then a ReLU or an addition if wanted.
#pragma once

#include <cmath>

#include "lanes.h"

struct Norm : Function<Norm> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight,
                        const Tensor& bias, Tensor mean, Tensor variance, double momentum,
                        double epsilon, bool relu, const std::optional<Tensor>& added) {
    Below torch_autograd;
    Tensor x = last(input), y = like(x, x.sizes());
    int64_t channels = x.size(1), pixels = x.numel() / channels;
    Tensor found = at::empty({2, channels}, weight.options());  // centre and scale
    std::vector<float> new_mean(channels), new_variance(channels);
    Tensor other = added ? last(*added) : Tensor();
    float fresh = momentum, unbiased = float(pixels) / std::max<int64_t>(pixels - 1, 1);
    over_groups(channels, [&]<int W, int N>(const std::array<int64_t, N>& places) {
      using L = Lanes<W>;
      using F = typename L::F;
      const Half* from = half(x);
      F shift[N], a[N], b[N], sums[2 * N];
      for (int k = 0; k < N; k++) shift[k] = L::load(from + places[k]);
      add_up(pixels, sums, [&](int64_t p, F* sum) {
        for (int k = 0; k < N; k++) {
          F distance = L::load(from + p * channels + places[k]) - shift[k];
          sum[2 * k] += distance;
          sum[2 * k + 1] += distance * distance;
        }
      });
      for (int k = 0; k < N; k++) {
        auto at = [&](const Tensor& tensor) { return tensor.data_ptr<float>() + places[k]; };
        F distance = sums[2 * k] / float(pixels), middle = shift[k] + distance;
        F spread = (sums[2 * k + 1] - sums[2 * k] * distance) / float(pixels);
        spread = spread <= F{} ? F{} : spread;
        F inverse = spread + float(epsilon);
        for (int lane = 0; lane < W; lane++) inverse[lane] = 1 / std::sqrt(inverse[lane]);
        L::store(at(found), middle);
        L::store(at(found) + channels, inverse);
        F past_mean = L::load(at(mean)), past_variance = L::load(at(variance));
        past_mean += fresh * (middle - past_mean);
        past_variance += fresh * (spread * unbiased - past_variance);
        L::store(new_mean.data() + places[k], past_mean);
        L::store(new_variance.data() + places[k], past_variance);
        a[k] = L::load(at(weight)) * inverse;
        b[k] = L::load(at(bias)) - middle * a[k];
      }
      Half* to = half(y);
      const Half* plus = added ? half(other) : nullptr;
      for (int64_t p = 0; p < pixels; p++)
        for (int k = 0; k < N; k++) {
          int64_t place = p * channels + places[k];
          F value = L::load(from + place) * a[k] + b[k];
          if (relu) value = L::relu(value);
          if (plus) value += L::load(plus + place);
          L::store(to + place, value);
        }
    });
    // At the end: blocks of channels may overlap.
    std::copy(new_mean.begin(), new_mean.end(), mean.data_ptr<float>());
    std::copy(new_variance.begin(), new_variance.end(), variance.data_ptr<float>());
    context->save_for_backward({x, weight, bias, found});
    context->saved_data["relu"] = relu;
    context->saved_data["added"] = added.has_value();
    return y;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    Below torch_autograd;
    auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const Tensor& found = saved[3];  // centre and scale
    bool relu = context->saved_data["relu"].toBool();
    Tensor dy = last(gradients[0]), dx = like(x, x.sizes());
    Tensor dweight = at::empty_like(weight), dbias = at::empty_like(weight);
    int64_t channels = x.size(1), pixels = x.numel() / channels;
    over_groups(channels, [&]<int W, int N>(const std::array<int64_t, N>& places) {
      using L = Lanes<W>;
      using F = typename L::F;
      const Half *from = half(x), *gradient = half(dy);
      F middle[N], a[N], b[N], sums[2 * N], slope[N], offset[N];
      auto each = [&](auto body) {
        for (int k = 0; k < N; k++)
          body(k, [&](const Tensor& tensor) { return tensor.data_ptr<float>() + places[k]; });
      };
      each([&](int k, auto at) {
        middle[k] = L::load(at(found));
        a[k] = L::load(at(weight)) * L::load(at(found) + channels);
        b[k] = L::load(at(bias)) - middle[k] * a[k];
      });
      auto passed = [&](int64_t place, F value, int k) {
        F arrived = L::load(gradient + place);
        return relu ? (value * a[k] + b[k] <= 0 ? F{} : arrived) : arrived;
      };
      add_up(pixels, sums, [&](int64_t p, F* sum) {
        for (int k = 0; k < N; k++) {
          int64_t place = p * channels + places[k];
          F value = L::load(from + place), arrived = passed(place, value, k);
          sum[2 * k] += arrived;
          sum[2 * k + 1] += arrived * (value - middle[k]);
        }
      });
      each([&](int k, auto at) {
        F inverse = L::load(at(found) + channels), sum = sums[2 * k], product = sums[2 * k + 1];
        L::store(at(dweight), product * inverse);
        L::store(at(dbias), sum);
        slope[k] = -a[k] * inverse * inverse * product / float(pixels);
        offset[k] = -a[k] * sum / float(pixels) - middle[k] * slope[k];
      });
      Half* to = half(dx);
      for (int64_t p = 0; p < pixels; p++)
        for (int k = 0; k < N; k++) {
          int64_t place = p * channels + places[k];
          F value = L::load(from + place), arrived = passed(place, value, k);
          L::store(to + place, a[k] * arrived + (value * slope[k] + offset[k]));
        }
    });
    Tensor none, plus = context->saved_data["added"].toBool() ? dy : none;
    return {dx, dweight, dbias, none, none, none, none, none, plus};
  }
};
