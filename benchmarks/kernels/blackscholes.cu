// Prices of European options, one a thread. The normal distribution is formula 26.2.17 of Abramowitz and Stegun.

static __device__ float normal(float d)
{
    float k = 1.0f / fmaf(0.2316419f, fabsf(d), 1.0f);
    float series = fmaf(k, 1.330274429f, -1.821255978f);
    series = fmaf(k, series, 1.781477937f);
    series = fmaf(k, series, -0.356563782f);
    series = fmaf(k, series, 0.319381530f);
    float tail = 0.39894228f * expf(-0.5f * d * d) * k * series;
    return d > 0.0f ? 1.0f - tail : tail;
}

extern "C" __global__ void blackscholes(const float *price, const float *strike, const float *years, float *calls,
                                        float *puts, float rate, float volatility, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float s = price[i], x = strike[i], t = years[i];
    float deviation = volatility * sqrtf(t);
    float d1 = fmaf(fmaf(0.5f * volatility, volatility, rate), t, logf(s / x)) / deviation;
    float d2 = d1 - deviation;
    float first = normal(d1), second = normal(d2), discounted = x * expf(-rate * t);
    calls[i] = fmaf(s, first, -discounted * second);
    puts[i] = fmaf(discounted, 1.0f - second, -s * (1.0f - first));
}
