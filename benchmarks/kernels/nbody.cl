// As nbody.cu.
#define TILE 256

__kernel void nbody(__global const float4 *bodies, __global float4 *accelerations, int n, float softening)
{
    __local float4 tile[TILE];
    int local_id = get_local_id(0), i = get_group_id(0) * TILE + local_id;
    float4 nobody = (float4)(0.0f, 0.0f, 0.0f, 0.0f);
    float4 me = i < n ? bodies[i] : nobody;
    float ax = 0.0f, ay = 0.0f, az = 0.0f;
    for (int base = 0; base < n; base += TILE) {
        tile[local_id] = base + local_id < n ? bodies[base + local_id] : nobody;
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 8
        for (int j = 0; j < TILE; j++) {
            float4 other = tile[j];
            float dx = other.x - me.x, dy = other.y - me.y, dz = other.z - me.z;
            float inverse = rsqrt(fma(dx, dx, fma(dy, dy, fma(dz, dz, softening))));
            float pull = other.w * inverse * inverse * inverse;
            ax = fma(dx, pull, ax);
            ay = fma(dy, pull, ay);
            az = fma(dz, pull, az);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (i < n) accelerations[i] = (float4)(ax, ay, az, 0.0f);
}
