// 3x3 max-pool with stride 2, which keeps the index (0 to 8) of the largest input in each window.
#pragma once

#include <limits>
#include <tuple>

#include "simd.h"

namespace sepablate {

// x (N, C, H, W) -> y (N, C, H', W') and indices like y in uint8, H' = (H + 2 padding - 3) / 2 + 1;
// padding 0 or 1.
inline std::tuple<Tensor, Tensor> max_pool_with_indices_cpu(const Tensor& input, int64_t padding) {
  check_images("max_pool", input);
  TORCH_CHECK(padding == 0 || padding == 1, "max_pool: padding must be 0 or 1, not ", padding);
  Tensor x = channels_last(input);
  int64_t images = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  int64_t out_height = (height + 2 * padding - 3) / 2 + 1;
  int64_t out_width = (width + 2 * padding - 3) / 2 + 1;
  Tensor y = empty_channels_last(x, {images, channels, out_height, out_width});
  Tensor indices = at::empty_like(y, y.options().dtype(at::kByte));
  share(images, [&](int64_t first, int64_t count) {
    for_channel_blocks(channels, [&]<int W>(int64_t start) {
      using V = Vec<W>;
      PaddedImage<W, PADDED> image(height, width, -std::numeric_limits<float>::infinity());
      int64_t to = first * out_height * out_width * channels + start;
      for (int64_t n = first; n < first + count; n++) {
        image.fill(bf16_data(x) + n * height * width * channels + start, channels, false);
        for (int64_t i = 0; i < out_height; i++)
          for (int64_t j = 0; j < out_width; j++, to += channels) {
            auto* window = image.at(2 * i - padding, 2 * j - padding);
            auto best = window[0];
            typename V::I32 index{};
            for (int k = 1; k < 9; k++) {
              auto value = window[k / 3 * image.row_stride + k % 3];
              auto better = (value > best) | (value != value);
              best = better ? value : best;
              index = better ? typename V::I32{} + k : index;
            }
            V::store(bf16_data(y) + to, best);
            auto bytes = __builtin_convertvector(index, typename V::U8);
            std::memcpy(indices.data_ptr<uint8_t>() + to, &bytes, sizeof bytes);
          }
      }
    });
  });
  return {y, indices};
}

// Returns only y, for calls that record no gradient.
inline Tensor max_pool_cpu(const Tensor& x, int64_t padding) {
  return std::get<0>(max_pool_with_indices_cpu(x, padding));
}

// grad, indices (N, C, H', W') -> the gradient of x (N, C, height, width).
inline Tensor max_pool_backward_cpu(const Tensor& grad, const Tensor& indices, int64_t height,
                                    int64_t width, int64_t padding) {
  check_images("max_pool_backward", grad);
  TORCH_CHECK(indices.is_contiguous(at::MemoryFormat::ChannelsLast),
              "max_pool_backward: indices must be in channels_last memory");
  Tensor dy = channels_last(grad);
  int64_t images = dy.size(0), channels = dy.size(1);
  int64_t out_height = dy.size(2), out_width = dy.size(3);
  Tensor dx = empty_channels_last(dy, {images, channels, height, width});
  share(images, [&](int64_t first, int64_t count) {
    for_channel_blocks(channels, [&]<int W>(int64_t start) {
      using V = Vec<W>;
      PaddedImage<W, PADDED> image(height, width);
      bf16_t* to = bf16_data(dx) + first * height * width * channels + start;
      int64_t from = first * out_height * out_width * channels + start;
      for (int64_t n = first; n < first + count; n++) {
        image.clear();
        for (int64_t i = 0; i < out_height; i++)
          for (int64_t j = 0; j < out_width; j++, from += channels) {
            auto gradient = V::load(bf16_data(dy) + from);
            typename V::U8 bytes;
            std::memcpy(&bytes, indices.data_ptr<uint8_t>() + from, sizeof bytes);
            auto index = __builtin_convertvector(bytes, typename V::I32);
            auto* window = image.at(2 * i - padding, 2 * j - padding);
            for (int k = 0; k < 9; k++)
              window[k / 3 * image.row_stride + k % 3] += index == k ? gradient : typename V::F32{};
          }
        for (int64_t i = 0; i < height; i++)
          for (int64_t j = 0; j < width; j++, to += channels) V::store(to, *image.at(i, j));
      }
    });
  });
  return dx;
}

}  // namespace sepablate
