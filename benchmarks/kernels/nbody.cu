// Accelerations of bodies (x, y, z, mass) by all others, through tiles of 256 bodies in shared memory. Block 256.
#define TILE 256

extern "C" __global__ void nbody(const float4 *bodies, float4 *accelerations, int n, float softening)
{
    __shared__ float4 tile[TILE];
    int i = blockIdx.x * TILE + threadIdx.x;
    float4 nobody = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float4 me = i < n ? bodies[i] : nobody;
    float ax = 0.0f, ay = 0.0f, az = 0.0f;
    for (int base = 0; base < n; base += TILE) {
        tile[threadIdx.x] = base + (int)threadIdx.x < n ? bodies[base + threadIdx.x] : nobody;
        __syncthreads();
        for (int j = 0; j < TILE; j++) {
            float4 other = tile[j];
            float dx = other.x - me.x, dy = other.y - me.y, dz = other.z - me.z;
            float inverse = rsqrtf(fmaf(dx, dx, fmaf(dy, dy, fmaf(dz, dz, softening))));
            float pull = other.w * inverse * inverse * inverse;
            ax = fmaf(dx, pull, ax);
            ay = fmaf(dy, pull, ay);
            az = fmaf(dz, pull, az);
        }
        __syncthreads();
    }
    if (i < n) accelerations[i] = make_float4(ax, ay, az, 0.0f);
}
