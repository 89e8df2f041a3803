// The kernels behind the operations on CUDA, compiled when the program first needs them. All arrays are f32 and
// contiguous unless a comment says otherwise. No kernel adds with atomics: the same input gives the same bytes on the same GPU.

struct Convolution {
    int batch, channels, height, width, kernel_height, kernel_width, stride, padding, out_height, out_width;
};

// Where the images that are pooled lie: element (image, channel, y, x) at image * image_stride + channel * channel_stride
// + y * width + x. Windows of one element stand for no pooling.
struct Pooling {
    int batch, channels, height, width, image_stride, channel_stride, kernel, stride, out_height, out_width, relu;
};

// NaN stays NaN.
__device__ float rectified(float value) { return value <= 0.0f ? 0.0f : value; }

// The sum over the threads of a block of at most 1024, for all of them.
template <typename T> __device__ T block_sum(T value) {
    __shared__ T sums[32];
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffff, value, offset);
    __syncthreads(); // Of an earlier call, every thread has its result.
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    T sum = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) sum += sums[warp];
    return sum;
}

// x [batch, channels, height, width] -> patches [channels * taps, batch * positions]. Threads: positions; channels in y.
extern "C" __global__ void unfold(float *patches, const float *x, Convolution g) {
    int positions = g.out_height * g.out_width, columns = g.batch * positions;
    int column = blockIdx.x * blockDim.x + threadIdx.x, channel = blockIdx.y;
    if (column >= columns) return;
    int image = column / positions, position = column % positions;
    int top = position / g.out_width * g.stride - g.padding, left = position % g.out_width * g.stride - g.padding;
    const float *plane = x + ((size_t)image * g.channels + channel) * g.height * g.width;
    float *out = patches + (size_t)channel * g.kernel_height * g.kernel_width * columns + column;
    for (int ky = 0; ky < g.kernel_height; ky++) {
        for (int kx = 0; kx < g.kernel_width; kx++, out += columns) {
            int y = top + ky, x = left + kx;
            bool inside = y >= 0 && y < g.height && x >= 0 && x < g.width;
            *out = inside ? plane[y * g.width + x] : 0.0f;
        }
    }
}

// The gradient of unfold: grad_x from that of the patches. Threads: elements of x.
extern "C" __global__ void fold(float *grad_x, const float *patches, Convolution g) {
    int plane = g.height * g.width, n = g.batch * g.channels * plane;
    int positions = g.out_height * g.out_width, columns = g.batch * positions;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int x = i % g.width, y = i / g.width % g.height, channel = i / plane % g.channels, image = i / plane / g.channels;
    const float *row = patches + (size_t)channel * g.kernel_height * g.kernel_width * columns + image * positions;
    float sum = 0.0f;
    for (int ky = 0; ky < g.kernel_height; ky++) {
        int top = y + g.padding - ky;
        for (int kx = 0; kx < g.kernel_width; kx++, row += columns) {
            int left = x + g.padding - kx;
            int out_y = top / g.stride, out_x = left / g.stride;
            bool hit = top >= 0 && left >= 0 && out_y * g.stride == top && out_x * g.stride == left &&
                       out_y < g.out_height && out_x < g.out_width;
            if (hit) sum += row[out_y * g.out_width + out_x];
        }
    }
    grad_x[i] = sum;
}

// source -> y [batch, channels, out_height, out_width] = relu(max over the window + bias [channels]), and the numbers of the
// taps that won, u8, where windows have several. Threads: elements of y.
extern "C" __global__ void pool(
    float *y, unsigned char *taps, const float *source, const float *bias, int has_bias, Pooling g) {
    int positions = g.out_height * g.out_width, n = g.batch * g.channels * positions;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int channel = i / positions % g.channels, image = i / positions / g.channels, position = i % positions;
    const float *corner = source + (size_t)image * g.image_stride + (size_t)channel * g.channel_stride +
                          position / g.out_width * g.stride * g.width + position % g.out_width * g.stride;
    float best = corner[0];
    int tap = 0;
    for (int k = 1; k < g.kernel * g.kernel; k++) {
        float value = corner[k / g.kernel * g.width + k % g.kernel];
        if (value > best || isnan(value)) best = value, tap = k;
    }
    if (g.kernel > 1) taps[i] = tap;
    if (has_bias) best += bias[channel];
    y[i] = g.relu ? rectified(best) : best;
}

// The gradient of pool: that of the source. Threads: elements of the source, of channels * batch images.
extern "C" __global__ void pool_backward(
    float *grad_source, const float *grad, const float *y, const unsigned char *taps, Pooling g) {
    int plane = g.height * g.width, n = g.batch * g.channels * plane, positions = g.out_height * g.out_width;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    // The larger stride is that of the outer dimension.
    bool channels_first = g.channel_stride > g.image_stride;
    int outer = i / plane / (channels_first ? g.batch : g.channels);
    int inner = i / plane % (channels_first ? g.batch : g.channels);
    int channel = channels_first ? outer : inner, image = channels_first ? inner : outer;
    int x = i % g.width, row = i / g.width % g.height;
    size_t first = ((size_t)image * g.channels + channel) * positions;
    int first_y = max(0, (row - g.kernel + g.stride) / g.stride), last_y = min(g.out_height - 1, row / g.stride);
    int first_x = max(0, (x - g.kernel + g.stride) / g.stride), last_x = min(g.out_width - 1, x / g.stride);
    float sum = 0.0f;
    for (int out_y = first_y; out_y <= last_y; out_y++) {
        for (int out_x = first_x; out_x <= last_x; out_x++) {
            size_t out = first + out_y * g.out_width + out_x;
            int tap = (row - out_y * g.stride) * g.kernel + x - out_x * g.stride;
            bool won = g.kernel == 1 || taps[out] == tap;
            if (won && !(g.relu && y[out] <= 0.0f)) sum += grad[out];
        }
    }
    grad_source[(size_t)image * g.image_stride + (size_t)channel * g.channel_stride + i % plane] = sum;
}

// sums [rows] of a [rows, columns], added to what is there if asked to. Blocks: rows.
extern "C" __global__ void row_sums(float *sums, const float *a, int columns, int add) {
    const float *row = a + (size_t)blockIdx.x * columns;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) sum += row[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = add ? sums[blockIdx.x] + sum : sum;
}

// y [rows, columns] += bias [columns], and a ReLU. Threads: elements.
extern "C" __global__ void add_bias(float *y, const float *bias, int columns, int n, int relu) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float value = y[i] + bias[i % columns];
    y[i] = relu ? rectified(value) : value;
}

// The gradient before a ReLU (or without one), [rows, columns], and its sums over rows, [columns]. Blocks of 32 x 32: columns.
extern "C" __global__ void add_bias_backward(
    float *before, float *sums, const float *grad, const float *y, int rows, int columns, int relu) {
    __shared__ float shared[32][33];
    int column = blockIdx.x * 32 + threadIdx.x % 32, first = threadIdx.x / 32;
    float sum = 0.0f;
    for (int row = first; row < rows && column < columns; row += 32) {
        size_t i = (size_t)row * columns + column;
        float value = relu && y[i] <= 0.0f ? 0.0f : grad[i];
        before[i] = value;
        sum += value;
    }
    shared[first][threadIdx.x % 32] = sum;
    __syncthreads();
    if (first > 0 || column >= columns) return;
    for (int row = 1; row < 32; row++) sum += shared[row][threadIdx.x];
    sums[column] = sum;
}

// moments [3, channels] = mean, variance, gamma / sqrt(variance + eps) of x [batch, channels, plane]. Blocks: channels.
extern "C" __global__ void moments(
    float *moments, const float *x, const float *gamma, int batch, int plane, double eps) {
    int channels = gridDim.x, channel = blockIdx.x, n = batch * plane;
    // Deviations from the first element: the sum of their squares does not cancel when the mean is large.
    float pivot = x[(size_t)channel * plane], sum = 0.0f, squares = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float value = x[((size_t)(i / plane) * channels + channel) * plane + i % plane] - pivot;
        sum += value;
        squares += value * value;
    }
    double total = block_sum((double)sum), total_squares = block_sum((double)squares);
    if (threadIdx.x > 0) return;
    double variance = (total_squares - total * total / n) / n;
    // Rounding can leave a constant channel just below 0.
    float rounded = rectified((float)variance);
    moments[channel] = (float)(pivot + total / n);
    moments[channels + channel] = rounded;
    moments[2 * channels + channel] = (float)(gamma[channel] / sqrt((double)rounded + eps));
}

// y = (x - centre) * scale + shift by channel, and a ReLU; a centre of null is 0. Threads: elements.
extern "C" __global__ void scale_shift(
    float *y, const float *x, const float *centre, const float *scale, const float *shift, int has_centre, int channels,
    int plane, int n, int relu) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int channel = i / plane % channels;
    float value = (has_centre ? x[i] - centre[channel] : x[i]) * scale[channel] + shift[channel];
    y[i] = relu ? rectified(value) : value;
}

// With g the gradient before the ReLU and d = x - mean: sums [4, channels] = the gradients of gamma and beta, mean g, and
// mean g * d / (variance + eps). Blocks: channels.
extern "C" __global__ void batch_norm_sums(
    float *sums, const float *x, const float *y, const float *grad, const float *moments, int batch, int plane, double eps,
    int relu) {
    int channels = gridDim.x, channel = blockIdx.x, n = batch * plane;
    float mean = moments[channel], sum = 0.0f, products = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        size_t place = ((size_t)(i / plane) * channels + channel) * plane + i % plane;
        float g = relu && y[place] <= 0.0f ? 0.0f : grad[place];
        sum += g;
        products += g * (x[place] - mean);
    }
    double total = block_sum((double)sum), total_products = block_sum((double)products);
    if (threadIdx.x > 0) return;
    double inverse = 1.0 / ((double)moments[channels + channel] + eps);
    sums[channel] = (float)(total_products * sqrt(inverse));
    sums[channels + channel] = (float)total;
    sums[2 * channels + channel] = (float)(total / n);
    sums[3 * channels + channel] = (float)(total_products / n * inverse);
}

// The gradient of x, with the sums of batch_norm_sums. Threads: elements.
extern "C" __global__ void batch_norm_backward(
    float *grad_x, const float *x, const float *y, const float *grad, const float *moments, const float *sums,
    int channels, int plane, int n, int relu) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int channel = i / plane % channels;
    float g = relu && y[i] <= 0.0f ? 0.0f : grad[i];
    float mean = moments[channel], scale = moments[2 * channels + channel];
    grad_x[i] = scale * (g - sums[2 * channels + channel] - (x[i] - mean) * sums[3 * channels + channel]);
}

// Updates of one variable with its buffers; see the rules in optim.rs. Threads: elements.
extern "C" __global__ void sgd(
    float *w, const float *g, float *velocity, int n, float momentum, float rate, float keep) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    velocity[i] = momentum * velocity[i] + g[i];
    w[i] = w[i] * keep - rate * velocity[i];
}

extern "C" __global__ void adamw(
    float *w, const float *g, float *first, float *second, int n, float beta1, float beta2, float rate, float root,
    float epsilon, float keep) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    first[i] = beta1 * first[i] + (1.0f - beta1) * g[i];
    second[i] = beta2 * second[i] + (1.0f - beta2) * g[i] * g[i];
    w[i] = w[i] * keep - rate * first[i] / (sqrtf(second[i]) * root + epsilon);
}
