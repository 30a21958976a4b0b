// As mandelbrot.cu.
#pragma OPENCL FP_CONTRACT OFF

__kernel void mandelbrot(__global int *steps, float left, float top, float pitch, int width, int height, int most)
{
    int px = get_global_id(0), py = get_global_id(1);
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
