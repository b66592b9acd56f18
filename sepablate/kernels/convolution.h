// Convolution as one matrix product: of the pixels themselves if it is 1x1, or of patches.
#pragma once

#include <algorithm>

#include "lanes.h"

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

    // Calls `body` for each row of each patch: (begin, length) of it in the matrix of patches, and
    // of the part inside the image: (skip) after begin, (pixel) in the image, (inside) its length.
    template <class Body> void runs(Body body) const {
      int64_t begin = 0, length = kernel_wide * inputs;
      for (int64_t n = 0; n < images; n++)
        for (int64_t i = 0; i < rows; i++)
          for (int64_t j = 0; j < columns; j++)
            for (int64_t k = 0; k < kernel_high; k++, begin += length) {
              int64_t y = i * stride + k - top, x = j * stride - left;
              int64_t skip = std::max<int64_t>(0, -x), end = std::min(kernel_wide, wide - x);
              bool meets = 0 <= y && y < high && skip < end;
              int64_t pixel = ((n * high + y) * wide + x + skip) * inputs;
              body(begin, length, skip * inputs, pixel, meets ? (end - skip) * inputs : 0);
            }
    }
  };

  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight,
                        int64_t stride, int64_t top, int64_t left) {
    Tensor x = last(input), kernel = kernels(weight);
    context->save_for_backward({x, kernel});
    context->saved_data["weight"] = weight.sizes();
    context->saved_data["geometry"] = std::vector<int64_t>{stride, top, left};
    Shape shape(x, weight.sizes(), stride, top, left);
    return map(at::mm(patches(x, shape), kernel.t()),
               {shape.images, shape.rows, shape.columns, weight.size(0)});
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &kernel = saved[1];
    auto weight = context->saved_data["weight"].toIntVector();
    auto geometry = context->saved_data["geometry"].toIntVector();
    Shape shape(x, weight, geometry[0], geometry[1], geometry[2]);
    Tensor dy = pixels(last(gradients[0])), dx, none;
    Tensor dweight = map(at::mm(dy.t(), patches(x, shape)).to(at::kFloat),
                         {weight[0], weight[2], weight[3], weight[1]});
    if (context->needs_input_grad(0))
      dx = together(at::mm(dy, kernel), shape);
    return {dx, dweight, none, none, none};
  }

  static Tensor pixels(const Tensor& map) {  // (N, C, H, W) to (N H W, C)
    return map.permute({0, 2, 3, 1}).reshape({-1, map.size(1)});
  }
  static Tensor kernels(const Tensor& weight) {  // (O, I, H, W) to (O, H W I)
    return weight.to(at::kBFloat16).permute({0, 2, 3, 1}).reshape({weight.size(0), -1});
  }
  static Tensor map(const Tensor& matrix, at::IntArrayRef sizes) {
    return matrix.view(sizes).permute({0, 3, 1, 2});
  }

  static Tensor patches(const Tensor& x, const Shape& shape) {
    if (shape.pointwise()) return pixels(x);
    int64_t size = shape.kernel_high * shape.kernel_wide * shape.inputs;
    Tensor found = at::empty({shape.images * shape.rows * shape.columns, size}, x.options());
    const Half* from = half(x);
    Half* to = half(found);
    shape.runs([&](int64_t begin, int64_t length, int64_t skip, int64_t pixel, int64_t inside) {
      if (inside < length) std::memset(to + begin, 0, length * sizeof(Half));
      std::memcpy(to + begin + skip, from + pixel, inside * sizeof(Half));
    });
    return found;
  }

  // The sum of the patches where they lay.
  static Tensor together(const Tensor& patches, const Shape& shape) {
    std::vector<int64_t> sizes{shape.images, shape.high, shape.wide, shape.inputs};
    if (shape.pointwise()) return map(patches, sizes);
    Tensor sums = at::zeros(sizes, at::kFloat);
    const Half* from = half(patches);
    float* to = sums.data_ptr<float>();
    shape.runs([&](int64_t begin, int64_t, int64_t skip, int64_t pixel, int64_t inside) {
      for (int64_t c = 0; c < inside; c++) to[pixel + c] += single(from[begin + skip + c]);
    });
    return sums.to(at::kBFloat16).permute({0, 3, 1, 2});
  }
};
