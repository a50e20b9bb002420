/* What the processor allows: the loops that one would write by hand for D = 3, float32.

   Rows i lie in vector lanes, VECTORS registers of them at once; columns j are broadcast one at a time; threads share
   out the rows. exp is a polynomial. Compiled where it runs (-march=native), called by ctypes from c_loops.py.
   Sums are gathered by blocks of j, as lazyjax and KeOps do.

   x, y: coordinates one after the other, (3, m) and (3, n), m a multiple of ROWS (padded by the caller). */

#include <stdint.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#define VECTORS 4 /* of 32 registers, 3 + 1 are taken for each */
#else
#define LANES 8
#define VECTORS 2 /* of 16 registers */
#endif
#define ROWS (LANES * VECTORS)
#define BLOCK 256

typedef float vf __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * LANES), aligned(4)));

static inline vf all(float a) { return a - (vf){0}; }

/* where a < b: p, elsewhere q */
static inline vf where_less(vf a, vf b, vf p, vf q) {
#if defined(__AVX512F__)
    return (vf)_mm512_mask_blend_ps(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ), (__m512)q, (__m512)p);
#elif defined(__AVX__)
    return (vf)_mm256_blendv_ps((__m256)q, (__m256)p, _mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ));
#else
    vi less = a < b;
    return (vf)(((vi)p & less) | ((vi)q & ~less));
#endif
}

/* exp(-s) for s >= 0: 2^k e^r with |r| <= log(2)/2; the Taylor polynomial of degree 7 leaves less than 1e-8 of error.
   Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits (hence no -fassociative-math here). */
static inline vf exp_minus(vf s) {
    const vf magic = all(12582912.0f);
    s = where_less(s, all(87.0f), s, all(87.0f));
    vf shifted = s * all(-1.44269504f) + magic;
    vf k = shifted - magic;
    vf r = k * all(-0.693359375f) - s; /* log(2) in two parts, Cody and Waite 1980 */
    r = k * all(2.12194440e-4f) + r;
    vf p = all(1.9841270e-4f);
    p = p * r + all(1.3888889e-3f);
    p = p * r + all(8.3333333e-3f);
    p = p * r + all(4.1666667e-2f);
    p = p * r + all(1.6666667e-1f);
    p = p * r + all(0.5f);
    p = p * r + all(1.0f);
    p = p * r + all(1.0f);
    return (vf)((vi)p + ((vi)shifted << 23));
}

int rows(void) { return ROWS; }

/* out_i = sum_j exp(-|x_i - y_j|^2) b_j */
void gaussian(int m, int n, const float *x, const float *y, const float *b, float *out) {
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < m; i += ROWS) {
        vf x0[VECTORS], x1[VECTORS], x2[VECTORS], total[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            x0[v] = *(const vf *)(x + i + v * LANES);
            x1[v] = *(const vf *)(x + m + i + v * LANES);
            x2[v] = *(const vf *)(x + 2 * m + i + v * LANES);
            total[v] = all(0);
        }
        for (int start = 0; start < n; start += BLOCK) {
            int end = start + BLOCK < n ? start + BLOCK : n;
            vf sum[VECTORS];
            for (int v = 0; v < VECTORS; v++) sum[v] = all(0);
            for (int j = start; j < end; j++)
                for (int v = 0; v < VECTORS; v++) {
                    vf d0 = x0[v] - y[j], d1 = x1[v] - y[n + j], d2 = x2[v] - y[2 * n + j];
                    sum[v] += exp_minus(d0 * d0 + d1 * d1 + d2 * d2) * b[j];
                }
            for (int v = 0; v < VECTORS; v++) total[v] += sum[v];
        }
        for (int v = 0; v < VECTORS; v++) *(vf *)(out + i + v * LANES) = total[v];
    }
}

/* out_i = -2 g_i sum_j exp(-|x_i - y_j|^2) b_j (x_i - y_j), (3, m) */
void gradient_x(int m, int n, const float *x, const float *y, const float *b, const float *g, float *out) {
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < m; i += LANES) {
        vf x0 = *(const vf *)(x + i), x1 = *(const vf *)(x + m + i), x2 = *(const vf *)(x + 2 * m + i);
        vf t0 = all(0), t1 = all(0), t2 = all(0);
        for (int start = 0; start < n; start += BLOCK) {
            int end = start + BLOCK < n ? start + BLOCK : n;
            vf s0 = all(0), s1 = all(0), s2 = all(0), r0 = all(0), r1 = all(0), r2 = all(0);
            int j = start;
            for (; j + 1 < end; j += 2) { /* two j's: their exponentials do not wait for each other */
                vf a0 = x0 - y[j], a1 = x1 - y[n + j], a2 = x2 - y[2 * n + j];
                vf c0 = x0 - y[j + 1], c1 = x1 - y[n + j + 1], c2 = x2 - y[2 * n + j + 1];
                vf wa = exp_minus(a0 * a0 + a1 * a1 + a2 * a2) * b[j];
                vf wc = exp_minus(c0 * c0 + c1 * c1 + c2 * c2) * b[j + 1];
                s0 += wa * a0, s1 += wa * a1, s2 += wa * a2;
                r0 += wc * c0, r1 += wc * c1, r2 += wc * c2;
            }
            for (; j < end; j++) {
                vf a0 = x0 - y[j], a1 = x1 - y[n + j], a2 = x2 - y[2 * n + j];
                vf w = exp_minus(a0 * a0 + a1 * a1 + a2 * a2) * b[j];
                s0 += w * a0, s1 += w * a1, s2 += w * a2;
            }
            t0 += s0 + r0, t1 += s1 + r1, t2 += s2 + r2;
        }
        vf scale = *(const vf *)(g + i) * -2.0f;
        *(vf *)(out + i) = scale * t0;
        *(vf *)(out + m + i) = scale * t1;
        *(vf *)(out + 2 * m + i) = scale * t2;
    }
}

/* out_i = argmin_j |x_i - y_j|^2, the lowest index of equals */
void argmin(int m, int n, const float *x, const float *y, int32_t *out) {
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < m; i += ROWS) {
        vf x0[VECTORS], x1[VECTORS], x2[VECTORS], best[VECTORS];
        vi index[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            x0[v] = *(const vf *)(x + i + v * LANES);
            x1[v] = *(const vf *)(x + m + i + v * LANES);
            x2[v] = *(const vf *)(x + 2 * m + i + v * LANES);
            best[v] = all(__builtin_inff());
            index[v] = (vi){0};
        }
        for (int j = 0; j < n; j++)
            for (int v = 0; v < VECTORS; v++) {
                vf d0 = x0[v] - y[j], d1 = x1[v] - y[n + j], d2 = x2[v] - y[2 * n + j];
                vf d = d0 * d0 + d1 * d1 + d2 * d2;
                index[v] = (vi)where_less(d, best[v], (vf)((vi){0} + j), (vf)index[v]);
                best[v] = where_less(d, best[v], d, best[v]);
            }
        for (int v = 0; v < VECTORS; v++) *(vi *)(out + i + v * LANES) = index[v];
    }
}
