// Batch norm with the statistics of the batch, then a ReLU or an addition if wanted.
#pragma once

#include <cmath>

#include "lanes.h"

struct Norm : Function<Norm> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight,
                        const Tensor& bias, Tensor mean, Tensor variance, double momentum,
                        double epsilon, bool relu, const std::optional<Tensor>& added) {
    Tensor x = last(input), y = like(x, x.sizes());
    int64_t channels = x.size(1), pixels = x.numel() / channels;
    Tensor found = at::empty({4, channels}, weight.options());
    Tensor centre = found[0], scale = found[1], new_mean = found[2], new_variance = found[3];
    Tensor other = added ? last(*added) : Tensor();
    float fresh = momentum, unbiased = float(pixels) / std::max<int64_t>(pixels - 1, 1);
    over_channels(channels, [&]<int W>(int64_t first) {
      using L = Lanes<W>;
      using F = typename L::F;
      const Half* from = half(x) + first;
      auto at = [&](const Tensor& tensor) { return tensor.data_ptr<float>() + first; };
      F sums[1], squares[1];
      add_up(pixels, sums, [&](int64_t p, F* sum) { sum[0] += L::load(from + p * channels); });
      F middle = sums[0] / float(pixels);
      add_up(pixels, squares, [&](int64_t p, F* sum) {
        F distance = L::load(from + p * channels) - middle;
        sum[0] += distance * distance;
      });
      F spread = squares[0] / float(pixels);
      F inverse = spread + float(epsilon);
      for (int lane = 0; lane < W; lane++) inverse[lane] = 1 / std::sqrt(inverse[lane]);
      L::store(at(centre), middle);
      L::store(at(scale), inverse);
      F past_mean = L::load(at(mean)), past_variance = L::load(at(variance));
      L::store(at(new_mean), past_mean + fresh * (middle - past_mean));
      L::store(at(new_variance), past_variance + fresh * (spread * unbiased - past_variance));
      F a = L::load(at(weight)) * inverse, b = L::load(at(bias)) - middle * a;
      Half* to = half(y) + first;
      const Half* plus = added ? half(other) + first : nullptr;
      for (int64_t p = 0; p < pixels; p++) {
        F value = L::load(from + p * channels) * a + b;
        if (relu) value = L::relu(value);
        if (plus) value += L::load(plus + p * channels);
        L::store(to + p * channels, value);
      }
    });
    mean.copy_(new_mean);  // at the end: blocks of channels may overlap
    variance.copy_(new_variance);
    context->save_for_backward({x, weight, bias, centre, scale});
    context->saved_data["relu"] = relu;
    context->saved_data["added"] = added.has_value();
    return y;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const Tensor &centre = saved[3], &scale = saved[4];
    bool relu = context->saved_data["relu"].toBool();
    Tensor dy = last(gradients[0]), dx = like(x, x.sizes());
    Tensor dweight = at::empty_like(weight), dbias = at::empty_like(weight);
    int64_t channels = x.size(1), pixels = x.numel() / channels;
    over_channels(channels, [&]<int W>(int64_t first) {
      using L = Lanes<W>;
      using F = typename L::F;
      auto at = [&](const Tensor& tensor) { return tensor.data_ptr<float>() + first; };
      const Half *from = half(x) + first, *gradient = half(dy) + first;
      F middle = L::load(at(centre)), inverse = L::load(at(scale));
      F a = L::load(at(weight)) * inverse, b = L::load(at(bias)) - middle * a;
      auto passed = [&](int64_t p, F value) {
        F arrived = L::load(gradient + p * channels);
        return relu ? (value * a + b <= 0 ? F{} : arrived) : arrived;
      };
      F sums[2];
      add_up(pixels, sums, [&](int64_t p, F* found) {
        F value = L::load(from + p * channels), arrived = passed(p, value);
        found[0] += arrived;
        found[1] += arrived * (value - middle);
      });
      F sum = sums[0], product = sums[1];
      L::store(at(dweight), product * inverse);
      L::store(at(dbias), sum);
      F slope = inverse * inverse * product / float(pixels), offset = sum / float(pixels);
      Half* to = half(dx) + first;
      for (int64_t p = 0; p < pixels; p++) {
        F value = L::load(from + p * channels), arrived = passed(p, value);
        L::store(to + p * channels, a * (arrived - offset - (value - middle) * slope));
      }
    });
    Tensor none, plus = context->saved_data["added"].toBool() ? dy : none;
    return {dx, dweight, dbias, none, none, none, none, none, plus};
  }
};
