// Steps until a point of the plane leaves the circle of radius 2, at most `most`: neighbours leave at different times.
// Products and sums are rounded one by one, so that counts are exact.

extern "C" __global__ void mandelbrot(int *steps, float left, float top, float pitch, int width, int height, int most)
{
    int px = blockIdx.x * blockDim.x + threadIdx.x, py = blockIdx.y * blockDim.y + threadIdx.y;
    if (px >= width || py >= height) return;
    float cx = left + px * pitch, cy = top + py * pitch, x = 0.0f, y = 0.0f;
    int n = 0;
    while (n < most) {
        float xx = x * x, yy = y * y;
        if (xx + yy > 4.0f) break;
        y = 2.0f * x * y + cy;
        x = xx - yy + cx;
        n++;
    }
    steps[py * width + px] = n;
}
