// Max-pool 3x3 with stride 2; of each output the place of the largest input, one byte.
#pragma once

#include <limits>

#include "lanes.h"

struct MaxPool : Function<MaxPool> {
  static Tensor forward(AutogradContext* context, const Tensor& input, int64_t border) {
    Below torch_autograd;
    Tensor x = last(input);
    int64_t images = x.size(0), channels = x.size(1), high = x.size(2), wide = x.size(3);
    int64_t rows = (high + 2 * border - 3) / 2 + 1, columns = (wide + 2 * border - 3) / 2 + 1;
    Tensor y = like(x, {images, channels, rows, columns});
    Tensor places = at::empty({images * rows * columns * channels}, x.options().dtype(at::kByte));
    over_channels(channels, [&]<int W>(int64_t first) {
      using L = Lanes<W>;
      Map<W> map(high, wide, -std::numeric_limits<float>::infinity());
      int64_t to = first;
      for (int64_t n = 0; n < images; n++) {
        map.fill(half(x) + n * high * wide * channels + first, channels, false);
        for (int64_t i = 0; i < rows; i++)
          for (int64_t j = 0; j < columns; j++, to += channels) {
            auto* p = map.at(2 * i - border, 2 * j - border);
            auto best = p[0];
            typename L::I place{};
            for (int k = 1; k < 9; k++) {
              auto value = p[k / 3 * map.row + k % 3];
              auto better = (value > best) | (value != value);
              best = better ? value : best;
              place = better ? typename L::I{} + k : place;
            }
            L::store(half(y) + to, best);
            auto bytes = __builtin_convertvector(place, typename L::B);
            std::memcpy(places.data_ptr<uint8_t>() + to, &bytes, sizeof bytes);
          }
      }
    });
    context->save_for_backward({places});
    context->saved_data["sizes"] = x.sizes();
    context->saved_data["border"] = border;
    return y;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    Below torch_autograd;
    Tensor places = context->get_saved_variables()[0], dy = last(gradients[0]);
    auto sizes = context->saved_data["sizes"].toIntVector();
    int64_t border = context->saved_data["border"].toInt();
    int64_t images = sizes[0], channels = sizes[1], high = sizes[2], wide = sizes[3];
    int64_t rows = dy.size(2), columns = dy.size(3);
    Tensor dx = like(dy, sizes);
    over_channels(channels, [&]<int W>(int64_t first) {
      using L = Lanes<W>;
      Map<W> map(high, wide);
      Half* to = half(dx) + first;
      int64_t from = first;
      for (int64_t n = 0; n < images; n++) {
        std::fill(map.pixels.begin(), map.pixels.end(), typename L::F{});
        for (int64_t i = 0; i < rows; i++)
          for (int64_t j = 0; j < columns; j++, from += channels) {
            auto gradient = L::load(half(dy) + from);
            typename L::B bytes;
            std::memcpy(&bytes, places.data_ptr<uint8_t>() + from, sizeof bytes);
            auto place = __builtin_convertvector(bytes, typename L::I);
            auto* p = map.at(2 * i - border, 2 * j - border);
            for (int k = 0; k < 9; k++)
              p[k / 3 * map.row + k % 3] += place == k ? gradient : typename L::F{};
          }
        for (int64_t i = 0; i < high; i++)
          for (int64_t j = 0; j < wide; j++, to += channels) L::store(to, *map.at(i, j));
      }
    });
    return {dx, Tensor()};
  }
};
