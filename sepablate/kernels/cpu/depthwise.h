// Depthwise 3x3 convolution with a border of one pixel, after a ReLU if wanted.
#pragma once

#include "lanes.h"

// The k-th of the nine pixels around a pixel of a map, and whether it lies on it: known at compile
// time where all loops over them are unrolled.
template <int SIZE> constexpr bool inside(int pixel, int k) {
  int i = pixel / SIZE + k / 3 - 1, j = pixel % SIZE + k % 3 - 1;
  return 0 <= i && i < SIZE && 0 <= j && j < SIZE;
}

template <int SIZE> constexpr int beside(int pixel, int k) {
  return pixel + (k / 3 - 1) * SIZE + k % 3 - 1;
}

// One image's block of channels, SIZE x SIZE pixels.
template <int W, int SIZE> struct Square {
  using L = Lanes<W>;
  typename L::F pixels[SIZE * SIZE];

  Square(const Half* from, int64_t channels, bool relu) {
    for (int p = 0; p < SIZE * SIZE; p++) {
      auto value = L::load(from + p * channels);
      pixels[p] = relu ? L::relu(value) : value;
    }
  }
};

struct Depthwise : Function<Depthwise> {
  using F = Lanes<16>::F;

  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight,
                        int64_t stride, bool relu) {
    Below torch_autograd;
    Tensor x = last(input);
    context->save_for_backward({x, weight});
    context->saved_data["stride"] = stride;
    context->saved_data["relu"] = relu;
    int64_t images = x.size(0), channels = x.size(1), high = x.size(2), wide = x.size(3);
    int64_t rows = (high - 1) / stride + 1, columns = (wide - 1) / stride + 1;
    Tensor y = like(x, {images, channels, rows, columns});
    std::vector<float> taps = turned(weight);
    over_channels(channels, [&]<int W>(int64_t first) {
      using L = Lanes<W>;
      typename L::F tap[9];
      for (int k = 0; k < 9; k++) tap[k] = L::load(taps.data() + k * channels + first);
      Half* to = half(y) + first;
      if constexpr (W == 16) {
        const Half* from = half(x) + first;
        if (stride == 1 && high == 4 && wide == 4)
          return small<4>(tap, from, to, images, channels, relu);
        if (stride == 1 && high == 2 && wide == 2)
          return small<2>(tap, from, to, images, channels, relu);
      }
      Map<W> map(high, wide);
      for (int64_t n = 0; n < images; n++) {
        map.fill(half(x) + n * high * wide * channels + first, channels, relu);
        for (int64_t i = 0; i < rows; i++)
          for (int64_t j = 0; j < columns; j++, to += channels) {
            auto* p = map.at(i * stride - 1, j * stride - 1);
            typename L::F sum = tap[0] * p[0];
            for (int k = 1; k < 9; k++) sum += tap[k] * p[k / 3 * map.row + k % 3];
            L::store(to, sum);
          }
      }
    });
    return y;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    Below torch_autograd;
    auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    int64_t stride = context->saved_data["stride"].toInt();
    bool relu = context->saved_data["relu"].toBool();
    Tensor dy = last(gradients[0]), dx = like(x, x.sizes());
    int64_t images = x.size(0), channels = x.size(1), high = x.size(2), wide = x.size(3);
    int64_t outputs = dy.size(2) * dy.size(3);
    std::vector<float> taps = turned(weight), found(9 * channels);
    over_channels(channels, [&]<int W>(int64_t first) {
      using L = Lanes<W>;
      typename L::F tap[9], sum[9] = {};
      for (int k = 0; k < 9; k++)
        tap[k] = L::load(taps.data() + (8 - k) * channels + first);
      Half* to = half(dx) + first;
      bool done = false;
      if constexpr (W == 16) {
        const Half *from = half(x) + first, *arrived = half(dy) + first;
        if ((done = stride == 1 && high == 4 && wide == 4))
          small<4>(tap, sum, from, arrived, to, images, channels, relu);
        else if ((done = stride == 1 && high == 2 && wide == 2))
          small<2>(tap, sum, from, arrived, to, images, channels, relu);
      }
      Map<W> in(high, wide), out(high, wide);
      for (int64_t n = 0; n < (done ? 0 : images); n++) {
        in.fill(half(x) + n * high * wide * channels + first, channels, relu);
        out.fill(half(dy) + n * outputs * channels + first, channels, false, stride);
        for (int64_t i = 0; i < high; i++)
          for (int64_t j = 0; j < wide; j++, to += channels) {
            auto *p = in.at(i - 1, j - 1), *q = out.at(i - 1, j - 1);
            auto here = q[in.row + 1], value = p[in.row + 1];
            typename L::F gradient{};
            for (int k = 0; k < 9; k++) {
              int64_t offset = k / 3 * in.row + k % 3;
              gradient += tap[k] * q[offset];
              sum[k] += here * p[offset];
            }
            if (relu) gradient = value <= 0 ? typename L::F{} : gradient;
            L::store(to, gradient);
          }
      }
      for (int k = 0; k < 9; k++) L::store(found.data() + k * channels + first, sum[k]);
    });
    Tensor dweight = at::empty_like(weight, at::MemoryFormat::Contiguous);
    for (int64_t channel = 0; channel < channels; channel++)
      for (int k = 0; k < 9; k++)
        dweight.data_ptr<float>()[channel * 9 + k] = found[k * channels + channel];
    return {dx, dweight, Tensor(), Tensor()};
  }

  static std::vector<float> turned(const Tensor& weight) {  // (channels, 9) to (9, channels)
    int64_t channels = weight.size(0);
    Tensor whole = weight.contiguous();
    const float* from = whole.data_ptr<float>();
    std::vector<float> taps(9 * channels);
    for (int64_t channel = 0; channel < channels; channel++)
      for (int k = 0; k < 9; k++) taps[k * channels + channel] = from[channel * 9 + k];
    return taps;
  }

  template <int SIZE>
  static void small(const F (&tap)[9], const Half* from, Half* to, int64_t images,
                    int64_t channels, bool relu) {
    for (int64_t n = 0; n < images; n++, from += SIZE * SIZE * channels) {
      Square<16, SIZE> in(from, channels, relu);
#pragma GCC unroll 16
      for (int p = 0; p < SIZE * SIZE; p++, to += channels) {
        F sum{};
#pragma GCC unroll 9
        for (int k = 0; k < 9; k++)
          if (inside<SIZE>(p, k)) sum += tap[k] * in.pixels[beside<SIZE>(p, k)];
        Lanes<16>::store(to, sum);
      }
    }
  }

  template <int SIZE>
  static void small(const F (&tap)[9], F (&sums)[9], const Half* from, const Half* arrived,
                    Half* to, int64_t images, int64_t channels, bool relu) {
    F sum[9] = {};
    for (int64_t n = 0; n < images; n++) {
      Square<16, SIZE> in(from, channels, relu), out(arrived, channels, false);
      from += SIZE * SIZE * channels, arrived += SIZE * SIZE * channels;
#pragma GCC unroll 16
      for (int p = 0; p < SIZE * SIZE; p++, to += channels) {
        F gradient{}, here = out.pixels[p];
#pragma GCC unroll 9
        for (int k = 0; k < 9; k++)
          if (inside<SIZE>(p, k)) {
            gradient += tap[k] * out.pixels[beside<SIZE>(p, k)];
            sum[k] += here * in.pixels[beside<SIZE>(p, k)];
          }
        if (relu) gradient = in.pixels[p] <= 0 ? F{} : gradient;
        Lanes<16>::store(to, gradient);
      }
    }
    for (int k = 0; k < 9; k++) sums[k] = sum[k];
  }
};
