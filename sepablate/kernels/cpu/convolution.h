// Convolution as one matrix product: of the pixels themselves if it is 1x1 with stride 1, otherwise
// of patches (im2col). Each function takes some of the images, whose matrix it makes.
#pragma once

#include <algorithm>
#include <optional>

#include "gemm.h"

namespace sepablate {

// The sizes of some images and of a convolution of them.
struct ConvShape {
  int64_t images, inputs, height, width;
  int64_t outputs, kernel_height, kernel_width, stride, padding_height, padding_width;
  int64_t out_height, out_width;

  ConvShape(const Tensor& x, at::IntArrayRef weight, int64_t stride, int64_t padding_height,
            int64_t padding_width)
      : images(x.size(0)), inputs(x.size(1)), height(x.size(2)), width(x.size(3)),
        outputs(weight[0]), kernel_height(weight[2]), kernel_width(weight[3]), stride(stride),
        padding_height(padding_height), padding_width(padding_width),
        out_height((height + 2 * padding_height - kernel_height) / stride + 1),
        out_width((width + 2 * padding_width - kernel_width) / stride + 1) {}

  bool one_pixel() const {  // each patch is a pixel
    return kernel_height * kernel_width == 1 && padding_height + padding_width == 0;
  }
  bool pointwise() const { return one_pixel() && stride == 1; }
  int64_t pixels() const { return height * width; }          // of an image
  int64_t out_pixels() const { return out_height * out_width; }  // of its result
  int64_t patch_size() const { return kernel_height * kernel_width * inputs; }

  // Returns the same for `count` of the images.
  ConvShape part(int64_t count) const {
    ConvShape shape = *this;
    shape.images = count;
    return shape;
  }
  // Returns the sizes of the convolution of the gradients that is the gradient of the input, if
  // the stride is 1: its kernel is this one, turned round.
  ConvShape turned() const {
    ConvShape shape = *this;
    std::swap(shape.inputs, shape.outputs), std::swap(shape.height, shape.out_height);
    std::swap(shape.width, shape.out_width);
    shape.padding_height = kernel_height - 1 - padding_height;
    shape.padding_width = kernel_width - 1 - padding_width;
    return shape;
  }
  // Calls body(first, count) for some images at a time, about GROUP pixels, in several threads.
  template <class Body> void for_groups(Body body) const {
    int64_t most = std::max<int64_t>(1, GROUP / std::max(pixels(), out_pixels()));
    share(images, [&](int64_t first, int64_t count) {
      for (int64_t n = first; n < first + count; n += most)
        body(n, std::min(most, first + count - n));
      at::native::cpublas::brgemm_release();
    });
  }
  static constexpr int64_t GROUP = 128;
};

// Copies `size` numbers, and up to 31 more that the next copy overwrites.
inline void copy_run(const bf16_t* from, int64_t size, bf16_t* to) {
  for (int64_t k = 0; k < size; k += 32) std::memcpy(to + k, from + k, 64);
}

// Returns the images with their padding of zeros.
inline const bf16_t* pad_images(const ConvShape& shape, const bf16_t* from) {
  int64_t line = shape.width * shape.inputs;
  int64_t before = shape.padding_width * shape.inputs, padded_line = line + 2 * before;
  int64_t top = shape.padding_height * padded_line;
  int64_t size = shape.height * padded_line + 2 * top;
  bf16_t* padded = scratch<bf16_t, IMAGES>(shape.images * size);
  std::memset(padded, 0, shape.images * size * sizeof(bf16_t));
  for (int64_t n = 0; n < shape.images; n++)
    for (int64_t i = 0; i < shape.height; i++, from += line)
      std::memcpy(padded + n * size + top + i * padded_line + before, from, line * sizeof(bf16_t));
  return padded;
}

// The matrix of the patches of the images `from`, with `readable` pixels in memory.
inline auto patches(const ConvShape& shape, const bf16_t* from, int64_t readable) {
  int64_t inputs = shape.inputs, padded_width = shape.width + 2 * shape.padding_width;
  int64_t image = padded_width * (shape.height + 2 * shape.padding_height);
  const bf16_t* images = shape.one_pixel() ? from : pad_images(shape, from);
  auto copy = [=](int64_t first, int64_t count, bf16_t* to, int64_t to_stride) {
    if (shape.pointwise()) return copy_rows(from + first * inputs, count, inputs, to, to_stride);
    int64_t line = first / shape.out_width, j = first - line * shape.out_width;
    int64_t n = line / shape.out_height, i = line - n * shape.out_height;
    int64_t run = shape.kernel_width * inputs;
    for (; count > 0; count--, to += to_stride) {
      int64_t pixel = n * image + (i * padded_width + j) * shape.stride;
      const bf16_t* patch = images + pixel * inputs;
      if (shape.one_pixel()) copy_rows(patch, 1, inputs, to, 0);
      else
        for (int64_t k = 0; k < shape.kernel_height; k++)
          copy_run(patch + k * padded_width * inputs, run, to + k * run);
      if (++j == shape.out_width) j = 0, i++;
      if (i == shape.out_height) i = 0, n++;
    }
  };
  return Rows<decltype(copy)>{shape.patch_size(), shape.pointwise() ? from : nullptr, readable,
                              copy};
}

inline PackedWeight pack_weight(const Tensor& weight) {  // (O, I, H, W) as (O, H W I)
  int64_t outputs = weight.size(0);
  Tensor matrix = weight.contiguous(at::MemoryFormat::ChannelsLast);
  return {matrix.data_ptr<float>(), outputs, weight.numel() / outputs};
}

// The weight (O, I, H, W) of the gradient's convolution, turned, as (H W O, I): O rows a tap.
inline PackedMatrix pack_turned(const Tensor& weight) {
  int64_t outputs = weight.size(0), inputs = weight.size(1), taps = weight.size(2) * weight.size(3);
  Tensor matrix = weight.contiguous(at::MemoryFormat::ChannelsLast);  // (O, H W, I)
  const float* from = matrix.data_ptr<float>();
  PackedWeight packed(taps * outputs, inputs);
  for (int64_t o = 0; o < outputs; o++)
    for (int64_t tap = 0; tap < taps; tap++, from += inputs)
      round_rows(from, 0, 1, inputs,
                 packed.numbers + ((taps - 1 - tap) * outputs + o) * packed.width, 0);
  return packed.backward();
}

inline void check_convolution(const char* name, const Tensor& x, const Tensor& weight,
                              int64_t stride) {
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.size(1) == weight.size(1), name,
              ": x must be (N, C, H, W) and weight (O, C, h, w), not ", x.sizes(), " and ",
              weight.sizes());
  TORCH_CHECK(stride >= 1, name, ": stride must be at least 1, not ", stride);
}

// Calls store(first, count, products, stride) with the convolution of the images `from`, in fp32, a
// block of pixels at a time.
template <class Store>
void convolve(const ConvShape& shape, const PackedMatrix& weight, const bf16_t* from,
              int64_t readable, Store store) {
  gemm(shape.images * shape.out_pixels(), shape.outputs, patches(shape, from, readable), weight,
       store);
}

// x (N, C, H, W), weight (O, C, h, w) in fp32 -> (N, O, H', W'),
// H' = (H + 2 padding_height - h) / stride + 1.
inline Tensor convolution_cpu(const Tensor& input, const Tensor& weight, int64_t stride,
                              int64_t padding_height, int64_t padding_width) {
  check_convolution("convolution", input, weight, stride);
  Tensor x = channels_last(input);
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  Tensor y =
      empty_channels_last(x, {shape.images, shape.outputs, shape.out_height, shape.out_width});
  PackedMatrix packed = pack_weight(weight).forward();
  shape.for_groups([&](int64_t n, int64_t count) {
    bf16_t* to = bf16_data(y) + n * shape.out_pixels() * shape.outputs;
    convolve(shape.part(count), packed, bf16_data(x) + n * shape.pixels() * shape.inputs,
             (shape.images - n) * shape.pixels(),
             [&](int64_t first, int64_t rows, const float* products, int64_t stride) {
               round_rows(products, stride, rows, shape.outputs, to + first * shape.outputs,
                          shape.outputs);
             });
  });
  return y;
}

// Writes fp32 rows of `size` numbers, `from_stride` numbers apart, plus the bias and the residual's
// contiguous rows, to contiguous rows in bf16, after a ReLU if `relu`.
inline void finish_rows(const float* from, int64_t from_stride, int64_t rows, int64_t size,
                        const float* bias, const bf16_t* residual, bool relu, bf16_t* to) {
  for_channel_groups(size, [&]<int W, int N>(const std::array<int64_t, N>& starts) {
    using V = Vec<W>;
    typename V::F32 offset[N];
    for (int k = 0; k < N; k++) offset[k] = V::load(bias + starts[k]);
    for (int64_t i = 0; i < rows; i++)
      for (int k = 0; k < N; k++) {
        auto sum = V::load(from + i * from_stride + starts[k]) + offset[k];
        if (residual) sum += V::load(residual + i * size + starts[k]);
        V::store(to + i * size + starts[k], relu ? V::relu(sum) : sum);
      }
  });
}

// The convolution of `convolution_cpu` plus bias (O) in fp32 and residual (N, O, H', W'), then a
// ReLU if `relu`; O is at least 2. Without gradients.
inline Tensor convolution_inference_cpu(const Tensor& input, const Tensor& weight,
                                        const Tensor& bias, const std::optional<Tensor>& residual,
                                        int64_t stride, int64_t padding_height,
                                        int64_t padding_width, bool relu) {
  check_convolution("convolution_inference", input, weight, stride);
  Tensor x = channels_last(input);
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  int64_t outputs = weight.size(0);
  TORCH_CHECK(outputs >= 2 && bias.numel() == outputs, "convolution_inference: bias must be (",
              outputs, "), of at least 2, not ", bias.sizes());
  Tensor y = empty_channels_last(x, {shape.images, outputs, shape.out_height, shape.out_width});
  TORCH_CHECK(!residual || residual->sizes() == y.sizes(),
              "convolution_inference: residual must be ", y.sizes());
  Tensor added = residual ? channels_last(*residual) : Tensor();
  PackedMatrix packed = pack_weight(weight).forward();
  shape.for_groups([&](int64_t n, int64_t count) {
    int64_t begin = n * shape.out_pixels() * outputs;
    convolve(shape.part(count), packed, bf16_data(x) + n * shape.pixels() * shape.inputs,
             (shape.images - n) * shape.pixels(),
             [&](int64_t first, int64_t rows, const float* products, int64_t stride) {
               int64_t at = begin + first * outputs;
               finish_rows(products, stride, rows, outputs, bias.data_ptr<float>(),
                           residual ? bf16_data(added) + at : nullptr, relu, bf16_data(y) + at);
             });
  });
  return y;
}

// grad (N, O, H', W'), x (N, C, H, W), weight (O, C, h, w) -> the gradient of weight.
inline Tensor convolution_weight_grad_cpu(const Tensor& grad, const Tensor& input,
                                          const Tensor& weight, int64_t stride,
                                          int64_t padding_height, int64_t padding_width) {
  check_convolution("convolution_weight_grad", input, weight, stride);
  Tensor x = channels_last(input), dy = channels_last(grad);
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  auto gradients = per_thread([&] { return WeightGradient(shape.outputs, shape.patch_size()); });
  shape.for_groups([&](int64_t n, int64_t count) {
    int64_t left = shape.images - n, out = shape.out_pixels();
    gradients.mine().add(
        count * out,
        contiguous_rows(bf16_data(dy) + n * out * shape.outputs, shape.outputs, left * out),
        patches(shape.part(count), bf16_data(x) + n * shape.pixels() * shape.inputs,
                left * shape.pixels()));
  });
  Tensor dweight = at::empty_like(weight, at::MemoryFormat::ChannelsLast);
  gradients.merged().write(dweight.data_ptr<float>());
  return dweight;
}

// The gradient of the input of a convolution, for some images at a time.
struct InputGradient {
  ConvShape shape;
  bool turned;  // it is a convolution of the gradients
  PackedMatrix packed;

  InputGradient(const ConvShape& shape, const Tensor& weight)
      : shape(shape), turned(!shape.pointwise() && can_turn(shape)),
        packed(turned ? pack_turned(weight) : pack_weight(weight).backward()) {}

  static bool can_turn(const ConvShape& shape) {
    return shape.stride == 1 && shape.padding_height < shape.kernel_height &&
           shape.padding_width < shape.kernel_width;
  }

  // Writes the gradient of `count` images to `to`, from that of the results, `grad`, of which
  // `readable` pixels lie in memory.
  void write(const bf16_t* grad, int64_t readable, int64_t count, bf16_t* to) const {
    int64_t inputs = shape.inputs;
    auto round = [&](int64_t first, int64_t rows, const float* products, int64_t stride) {
      round_rows(products, stride, rows, inputs, to + first * inputs, inputs);
    };
    if (turned) return convolve(shape.part(count).turned(), packed, grad, readable, round);
    auto rows = contiguous_rows(grad, shape.outputs, readable);
    int64_t pixels = count * shape.out_pixels();
    if (shape.pointwise()) return gemm(pixels, inputs, rows, packed, round);
    scatter(pixels, count, rows, to);
  }

 private:
  // Adds each patch's products to its pixels.
  template <class Copy>
  void scatter(int64_t out_pixels, int64_t count, const Rows<Copy>& rows, bf16_t* to) const {
    int64_t inputs = shape.inputs, size = count * shape.pixels() * inputs;
    float* sums = scratch<float, SCATTERED>(size);
    std::memset(sums, 0, size * sizeof(float));
    gemm(out_pixels, shape.patch_size(), rows, packed,
         [&](int64_t first, int64_t blocks, const float* products, int64_t stride) {
           for (int64_t pixel = first; pixel < first + blocks; pixel++, products += stride)
             add_patch(pixel, products, sums);
         });
    round_rows(sums, 0, 1, size, to, 0);
  }

  void add_patch(int64_t out_pixel, const float* products, float* sums) const {
    int64_t line = out_pixel / shape.out_width, n = line / shape.out_height;
    int64_t y = (line - n * shape.out_height) * shape.stride - shape.padding_height;
    int64_t x = (out_pixel - line * shape.out_width) * shape.stride - shape.padding_width;
    int64_t skip = std::max<int64_t>(0, -x), end = std::min(shape.kernel_width, shape.width - x);
    for (int64_t k = 0; k < shape.kernel_height; k++) {
      if (y + k < 0 || y + k >= shape.height || skip >= end) continue;
      float* to = sums + ((n * shape.height + y + k) * shape.width + x + skip) * shape.inputs;
      const float* from = products + (k * shape.kernel_width + skip) * shape.inputs;
      for (int64_t c = 0; c < (end - skip) * shape.inputs; c++) to[c] += from[c];
    }
  }
};

// grad (N, O, H', W'), x (N, C, H, W), weight (O, C, h, w) -> the gradient of x. Of x only the
// shape is read.
inline Tensor convolution_input_grad_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                         int64_t stride, int64_t padding_height,
                                         int64_t padding_width) {
  check_convolution("convolution_input_grad", x, weight, stride);
  Tensor dy = channels_last(grad), dx = empty_channels_last(x, x.sizes());
  ConvShape shape(x, weight.sizes(), stride, padding_height, padding_width);
  InputGradient gradient(shape, weight);
  shape.for_groups([&](int64_t n, int64_t count) {
    int64_t out = shape.out_pixels();
    gradient.write(bf16_data(dy) + n * out * shape.outputs, (shape.images - n) * out, count,
                   bf16_data(dx) + n * shape.pixels() * shape.inputs);
  });
  return dx;
}

}  // namespace sepablate
