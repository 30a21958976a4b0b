// As blackscholes.cu.

static float normal(float d)
{
    float k = 1.0f / fma(0.2316419f, fabs(d), 1.0f);
    float series = fma(k, 1.330274429f, -1.821255978f);
    series = fma(k, series, 1.781477937f);
    series = fma(k, series, -0.356563782f);
    series = fma(k, series, 0.319381530f);
    float tail = 0.39894228f * exp(-0.5f * d * d) * k * series;
    return d > 0.0f ? 1.0f - tail : tail;
}

__kernel void blackscholes(__global const float *price, __global const float *strike, __global const float *years,
                           __global float *calls, __global float *puts, float rate, float volatility, int n)
{
    int i = get_global_id(0);
    if (i >= n) return;
    float s = price[i], x = strike[i], t = years[i];
    float deviation = volatility * sqrt(t);
    float d1 = fma(fma(0.5f * volatility, volatility, rate), t, log(s / x)) / deviation;
    float d2 = d1 - deviation;
    float first = normal(d1), second = normal(d2), discounted = x * exp(-rate * t);
    calls[i] = fma(s, first, -discounted * second);
    puts[i] = fma(discounted, 1.0f - second, -s * (1.0f - first));
}
