// Convolution as one matrix product: of the pixels themselves if it is 1x1, or of patches.
#pragma once

#include <algorithm>

#include "product.h"

struct Convolution : Function<Convolution> {
  struct Shape {
    int64_t images, inputs, high, wide;                 // of the input
    int64_t kernel_high, kernel_wide, stride, top, left;  // top, left: the border's pixels
    int64_t rows, columns;                              // of the output

    Shape(const Tensor& x, at::IntArrayRef weight, int64_t stride, int64_t top, int64_t left)
        : images(x.size(0)), inputs(x.size(1)), high(x.size(2)), wide(x.size(3)),
          kernel_high(weight[2]), kernel_wide(weight[3]), stride(stride), top(top),
          left(left), rows((high + 2 * top - kernel_high) / stride + 1),
          columns((wide + 2 * left - kernel_wide) / stride + 1) {}

    bool pointwise() const { return kernel_high * kernel_wide * stride == 1 && top + left == 0; }
    int64_t outputs() const { return images * rows * columns; }
    int64_t size() const { return kernel_high * kernel_wide * inputs; }  // of a patch

    // Calls `body(begin, pixel, length)` for each row of an output's patch, as far as it lies in
    // the image: where it begins in the patch, and in the image.
    template <class Body> void patch(int64_t output, Body body) const {
      uint32_t line = uint32_t(output) / uint32_t(columns), j = output - line * columns;
      uint32_t n = line / uint32_t(rows), i = line - n * rows;
      int64_t x = int64_t(j) * stride - left;
      int64_t skip = std::max<int64_t>(0, -x), end = std::min(kernel_wide, wide - x);
      if (skip >= end) return;
      for (int64_t k = 0; k < kernel_high; k++) {
        int64_t y = int64_t(i) * stride + k - top;
        if (0 <= y && y < high)
          body((k * kernel_wide + skip) * inputs, ((n * high + y) * wide + x + skip) * inputs,
               (end - skip) * inputs);
      }
    }

    const Half* whole(const Half* from) const { return pointwise() ? from : nullptr; }

    // What writes outputs' patches.
    auto take(const Half* from) const {
      return [this, from](int64_t first, int64_t count, Half* to, int64_t row) {
        if (pointwise()) return copy_rows(from + first * inputs, count, inputs, to, row);
        for (int64_t output = first; output < first + count; output++, to += row) {
          std::fill(to, to + size(), 0);
          patch(output, [&](int64_t begin, int64_t pixel, int64_t length) {
            copy_rows(from + pixel, 1, length, to + begin, 0);
          });
        }
      };
    }
  };

  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight,
                        int64_t stride, int64_t top, int64_t left) {
    Below torch_autograd;
    Tensor x = last(input);
    context->save_for_backward({x, weight});
    context->saved_data["geometry"] = std::vector<int64_t>{stride, top, left};
    Shape shape(x, weight.sizes(), stride, top, left);
    int64_t outputs = weight.size(0);
    Tensor y = like(x, {shape.images, outputs, shape.rows, shape.columns});
    Half* to = half(y);
    products(shape.outputs(), shape.size(), outputs, weights(weight).forward(),
             shape.whole(half(x)), shape.take(half(x)),
             [&](int64_t first, int64_t count, const float* found, int64_t row) {
               round_rows(found, row, count, outputs, to + first * outputs, outputs);
             });
    return y;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    Below torch_autograd;
    auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    auto geometry = context->saved_data["geometry"].toIntVector();
    Shape shape(x, weight.sizes(), geometry[0], geometry[1], geometry[2]);
    Tensor dy = last(gradients[0]), dx, none;
    int64_t outputs = weight.size(0);
    const Half* from = half(dy);
    Tensor dweight = at::empty_like(weight, at::MemoryFormat::ChannelsLast);
    correlated(shape.outputs(), outputs, shape.size(), from, shape.whole(half(x)),
               shape.take(half(x)), dweight.data_ptr<float>());
    if (context->needs_input_grad(0)) {
      bool alone = shape.pointwise();  // no two outputs have an input in common
      Tensor sums = alone ? none : at::zeros({x.numel()}, at::kFloat);
      dx = like(x, x.sizes());
      products(shape.outputs(), outputs, shape.size(), weights(weight).backward(), from,
               [&](int64_t first, int64_t count, Half* to, int64_t row) {
                 copy_rows(from + first * outputs, count, outputs, to, row);
               },
               [&](int64_t first, int64_t count, const float* found, int64_t row) {
                 if (alone)
                   return round_rows(found, row, count, shape.inputs,
                                     half(dx) + first * shape.inputs, shape.inputs);
                 float* to = sums.data_ptr<float>();
                 for (int64_t output = first; output < first + count; output++, found += row)
                   shape.patch(output, [&](int64_t begin, int64_t pixel, int64_t length) {
                     for (int64_t k = 0; k < length; k++) to[pixel + k] += found[begin + k];
                   });
               });
      if (!alone) round_rows(sums.data_ptr<float>(), 0, 1, sums.numel(), half(dx), 0);
    }
    return {dx, dweight, none, none, none};
  }

  static Weights weights(const Tensor& weight) {  // (O, I, H, W) to (O, H W I)
    int64_t outputs = weight.size(0), inputs = weight.numel() / outputs;
    return {weight.contiguous(at::MemoryFormat::ChannelsLast), outputs, inputs};
  }
};
