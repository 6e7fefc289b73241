/* The student's sums over pairs, for CPUs: what student.py writes with tensors, in its order.

   Compiled by kernels.py with the sizes of one architecture as constants:
   REAL, SPECIES, BESSEL, GAUSSIANS, MESSAGES, NEAR_HIDDEN, NEAR_CHANNELS, NEAR_BESSEL, FAR_BESSEL,
   MIXED (channels, 0 for none).

   A half pair h joins atoms first[h] and second[h]; its directed edges are 2h (first to second)
   and 2h + 1. Half pairs come in order of reach: those below n_near may be near, below n_rows
   within the densities' cutoff, all others within the far cutoff. Every function works on a
   range of pairs or atoms and writes to that range alone, so ranges may run in threads. */

#include "student_sizes.h"

#define AHEAD 16 /* edges between asking for a record and using it */

int64_t parameter_count(void) { return P_END; }
int64_t system_size(void) { return (int64_t)sizeof(system_t); }
int64_t record_size(void) { return RECORD; }

static inline void harmonics(const real *u, real *y)
{
    const real root3 = (real)1.7320508075688772;
    y[0] = 1;
    y[1] = u[0];
    y[2] = u[1];
    y[3] = u[2];
    y[4] = root3 * u[0] * u[1];
    y[5] = root3 * u[1] * u[2];
    y[6] = u[2] * u[2] - (real)0.5 * (u[0] * u[0] + u[1] * u[1]);
    y[7] = root3 * u[0] * u[2];
    y[8] = (real)0.5 * root3 * (u[0] * u[0] - u[1] * u[1]);
}

static inline real smooth_step(real r, real low, real high)
{
    real t = (r - low) / (high - low);
    t = t < 0 ? 0 : (t > 1 ? 1 : t);
    return t * t * t * (10 + t * (6 * t - 15));
}

/* (1 - (r/rc)^4)^4 and its derivative in r. */
static inline void cutoff(real r, real rc, real *fc, real *slope)
{
    real y = r * r / (rc * rc);
    y = y > 1 ? 1 : y;
    real one = 1 - y * y, cube = one * one * one;
    *fc = cube * one;
    *slope = cube * y * (real)-16.0 / (rc * rc) * r;
}

/* Distances and unit vectors of half pairs, and the radial functions of those in rows. */
void geometry(const system_t *s, int64_t h0, int64_t h1)
{
    const double *c = s->cell;
    for (int64_t h = h0; h < h1; h++) {
        const double *a = s->x + 3 * s->first[h], *b = s->x + 3 * s->second[h];
        const double *w = s->shifts + 3 * h;
        double dx = b[0] - a[0] + w[0] * c[0] + w[1] * c[3] + w[2] * c[6];
        double dy = b[1] - a[1] + w[0] * c[1] + w[1] * c[4] + w[2] * c[7];
        double dz = b[2] - a[2] + w[0] * c[2] + w[1] * c[5] + w[2] * c[8];
        double r = sqrt(dx * dx + dy * dy + dz * dz), inverse = 1.0 / r;
        s->distance[h] = (real)r;
        s->unit[3 * h] = (real)(dx * inverse);
        s->unit[3 * h + 1] = (real)(dy * inverse);
        s->unit[3 * h + 2] = (real)(dz * inverse);
    }
    const real *p = s->parameters;
    const real rc = p[P_CUTOFFS], width = p[P_CUTOFFS + 3], scale = rc / (real)PI;
    if (h1 > s->n_rows)
        h1 = s->n_rows;
    for (int64_t start = h0; start < h1; start += LANES) {
        const int lanes = h1 - start < LANES ? (int)(h1 - start) : LANES;
        ON_LINES real r[LANES], fc[LANES], slope[LANES], s1[LANES], c1[LANES], inverse[LANES];
        ON_LINES real value[RADIAL][LANES], rate[RADIAL][LANES];
        for (int k = 0; k < LANES; k++)
            r[k] = s->distance[start + (k < lanes ? k : 0)];
        for (int k = 0; k < LANES; k++) {
            cutoff(r[k], rc, &fc[k], &slope[k]);
            inverse[k] = 1 / r[k];
            s1[k] = REAL_SIN(r[k] / scale);
        }
        for (int k = 0; k < LANES; k++)
            c1[k] = REAL_COS(r[k] / scale);
        ON_LINES real sine[LANES], cosine[LANES];
        for (int k = 0; k < LANES; k++) {
            sine[k] = s1[k];
            cosine[k] = c1[k];
        }
        for (int n = 0; n < BESSEL; n++) /* sin and cos of (n + 1) theta by rotation */
            for (int k = 0; k < LANES; k++) {
                real bare = sine[k] * inverse[k] * scale;
                value[n][k] = bare * fc[k];
                rate[n][k] = (cosine[k] * (n + 1) - bare) * inverse[k] * fc[k] + bare * slope[k];
                real turned = sine[k] * c1[k] + cosine[k] * s1[k];
                cosine[k] = cosine[k] * c1[k] - sine[k] * s1[k];
                sine[k] = turned;
            }
        for (int n = 0; n < GAUSSIANS; n++)
            for (int k = 0; k < LANES; k++) {
                real d = (r[k] - p[P_CENTRES + n]) / width;
                real g = REAL_EXP((real)-0.5 * d * d);
                value[BESSEL + n][k] = g * fc[k];
                rate[BESSEL + n][k] = g * slope[k] - g * fc[k] * d / width;
            }
        for (int k = 0; k < lanes; k++) {
            real *row = s->rows + (start + k) * RECORD;
            row[R_UNIT] = OUTSIDE;
            if (r[k] >= rc)
                continue;
            memcpy(row + R_UNIT, s->unit + 3 * (start + k), 3 * sizeof *row);
            row[R_DISTANCE] = r[k];
            for (int n = 0; n < RADIAL; n++) {
                row[R_VALUE + n] = value[n][k];
                row[R_SLOPE + n] = rate[n][k];
            }
#if MESSAGES
            ON_LINES real v[MESSAGES] = {0}, w[MESSAGES] = {0};
            for (int n = 0; n < RADIAL; n++) {
                const real *rho = p + P_RHO + n * MESSAGES;
                for (int m = 0; m < MESSAGES; m++) {
                    v[m] += rho[m] * value[n][k];
                    w[m] += rho[m] * rate[n][k];
                }
            }
            memcpy(row + R_SENT, v, sizeof v);
            memcpy(row + R_SENT_SLOPE, w, sizeof w);
#endif
        }
    }
}

/* Asks for what a later edge reads: pairs of one atom lie all over memory in a large system. As a
   call of a function gcc takes it for without effect, and drops it. */
static inline __attribute__((always_inline)) void fetch(const real *from, int width)
{
    for (int k = 0; k < width; k += 64 / (int)sizeof(real))
        __builtin_prefetch(from + k);
}

/* A later edge, of this atom or of the next ones, and its neighbour. */
static inline const int32_t *ahead(const system_t *s, int64_t e)
{
    return s->edges + 2 * (e + AHEAD < 2 * s->n_rows ? e + AHEAD : e);
}

/* The row of a directed edge, and harmonics along it: odd ones change sign with the direction.
   0: beyond the cutoff. */
static inline const real *row_of(const system_t *s, int32_t edge, real *u, real *y)
{
    const real *row = s->rows + (int64_t)(edge >> 1) * RECORD, sign = edge & 1 ? -1 : 1;
    if (row[R_UNIT] == OUTSIDE)
        return 0;
    for (int a = 0; a < 3; a++)
        u[a] = sign * row[R_UNIT + a];
    harmonics(u, y);
    return row;
}

#if MIXED
/* A' (atoms, 9, FIXED) of a range of atoms: only elements among an atom's neighbours cost time. */
void densities(const system_t *s, real *out, int64_t a0, int64_t a1)
{
    enum { WIDE = PAD(RADIAL) / LANES }; /* what lies after the values in a row fills up lanes */
    for (int64_t i = a0; i < a1; i++) {
        ON_LINES vector sum[SPECIES][9][WIDE];
        unsigned char is_neighbour[SPECIES] = {0};
        int kinds[SPECIES], count = 0;
        for (int64_t e = s->row_start[i]; e < s->row_start[i + 1]; e++) {
            const int32_t edge = s->edges[2 * e], j = s->edges[2 * e + 1];
            fetch(s->rows + (int64_t)(*ahead(s, e) >> 1) * RECORD, R_SENT);
            real u[3], y[9];
            const real *row = row_of(s, edge, u, y);
            if (!row)
                continue;
            const int32_t kind = s->species[j];
            vector(*to)[WIDE] = sum[kind];
            if (!is_neighbour[kind]) {
                is_neighbour[kind] = 1;
                kinds[count++] = kind;
                memset(to, 0, sizeof sum[kind]);
            }
            for (int n = 0; n < WIDE; n++) {
                const vector v = *(const vector *)(row + R_VALUE + n * LANES);
                for (int m = 0; m < 9; m++)
                    to[m][n] += y[m] * v;
            }
        }
        const real *w = s->parameters + P_MIXING + s->species[i] * SPECIES * MIXED;
        for (int m = 0; m < 9; m++)
            for (int k = 0; k < MIXED; k++) {
                ON_LINES vector mixed[WIDE] = {0};
                for (int c = 0; c < count; c++)
                    for (int n = 0; n < WIDE; n++)
                        mixed[n] += w[kinds[c] * MIXED + k] * sum[kinds[c]][m][n];
                memcpy(out + ((i - a0) * 9 + m) * FIXED + k * RADIAL, mixed, RADIAL * sizeof(real));
            }
    }
}
#else
/* A (atoms, 9, FIXED) of a range of atoms. */
void densities(const system_t *s, real *out, int64_t a0, int64_t a1)
{
    for (int64_t i = a0; i < a1; i++) {
        ON_LINES real sum[SPECIES][9][RADIAL];
        memset(sum, 0, sizeof sum);
        for (int64_t e = s->row_start[i]; e < s->row_start[i + 1]; e++) {
            const int32_t edge = s->edges[2 * e], j = s->edges[2 * e + 1];
            fetch(s->rows + (int64_t)(*ahead(s, e) >> 1) * RECORD, R_SENT);
            real u[3], y[9];
            const real *row = row_of(s, edge, u, y);
            if (!row)
                continue;
            const real *v = row + R_VALUE;
            real(*to)[RADIAL] = sum[s->species[j]];
            for (int m = 0; m < 9; m++)
                for (int n = 0; n < RADIAL; n++)
                    to[m][n] += y[m] * v[n];
        }
        for (int m = 0; m < 9; m++)
            for (int k = 0; k < SPECIES; k++)
                memcpy(out + ((i - a0) * 9 + m) * FIXED + k * RADIAL, sum[k][m], sizeof sum[k][m]);
    }
}

#endif

/* B (atoms, 9, MESSAGES) of a range of atoms, from q (n_atoms, MESSAGES). */
void messages(const system_t *s, const real *q, real *out, int64_t a0, int64_t a1)
{
#if MESSAGES
    for (int64_t i = a0; i < a1; i++) {
        ON_LINES real sum[9][MESSAGES];
        memset(sum, 0, sizeof sum);
        for (int64_t e = s->row_start[i]; e < s->row_start[i + 1]; e++) {
            const int32_t edge = s->edges[2 * e], j = s->edges[2 * e + 1];
            const int32_t *later = ahead(s, e); /* the whole row: gradient_forces comes next */
            fetch(s->rows + (int64_t)(later[0] >> 1) * RECORD, RECORD);
            fetch(q + (int64_t)later[1] * MESSAGES, MESSAGES);
            ON_LINES real u[3], y[9], w[MESSAGES];
            const real *row = row_of(s, edge, u, y);
            if (!row)
                continue;
            const real *v = row + R_SENT, *qj = q + (int64_t)j * MESSAGES;
            for (int m = 0; m < MESSAGES; m++)
                w[m] = v[m] * qj[m];
            for (int l = 0; l < 9; l++)
                for (int m = 0; m < MESSAGES; m++)
                    sum[l][m] += y[l] * w[m];
        }
        memcpy(out + (i - a0) * 9 * MESSAGES, sum, sizeof sum);
    }
#else
    (void)s, (void)q, (void)out, (void)a0, (void)a1;
#endif
}

/* Adds sum over n of g[n] a[n] and g[n] b[n]. Two sums each: one would wait for its last addition. */
static inline void add_products(const vector *g, const real *a, const real *b, int count,
                                vector *along, vector *across)
{
    vector a0 = *along, b0 = *across, a1 = {0}, b1 = {0};
    for (int n = 0; n + 1 < count; n += 2) {
        a0 += g[n] * a[n];
        b0 += g[n] * b[n];
        a1 += g[n + 1] * a[n + 1];
        b1 += g[n + 1] * b[n + 1];
    }
    if (count & 1) {
        a0 += g[count - 1] * a[count - 1];
        b0 += g[count - 1] * b[count - 1];
    }
    *along = a0 + a1;
    *across = b0 + b1;
}

#if MIXED
/* G of one element of neighbours, (RADIAL) vectors, from G' of all channels: student.unmix. */
static inline void unmix(const system_t *s, int32_t zi, int32_t zj, const vector *g, vector *out)
{
    const real *w = s->parameters + P_MIXING + (zi * SPECIES + zj) * MIXED;
    const real *base = s->parameters + P_BASE + (zi * SPECIES + zj) * RADIAL;
    for (int n = 0; n < RADIAL; n++) {
        vector sum = {base[n]};
        for (int k = 0; k < MIXED; k++)
            sum += w[k] * g[k * RADIAL + n];
        out[n] = sum;
    }
}
#endif

/* Gradient-shaped forces along the directed edges of a range of atoms, from their G (atoms, 9, ALL). */
void gradient_forces(const system_t *s, const real *heads, const real *q, int64_t a0, int64_t a1)
{
    const real *p = s->parameters;
    for (int64_t i = a0; i < a1; i++) {
        /* Components beside each other, so that sums over n need no shuffles. */
        ON_LINES vector g[ALL];
        memset(g, 0, sizeof g);
        for (int m = 0; m < 9; m++)
            for (int n = 0; n < ALL; n++)
                g[n][m] = heads[((i - a0) * 9 + m) * ALL + n];
#if MIXED
        ON_LINES vector by_element[SPECIES * RADIAL]; /* made when a neighbour needs it */
        unsigned char is_made[SPECIES] = {0};
#endif
        for (int64_t e = s->row_start[i]; e < s->row_start[i + 1]; e++) {
            const int32_t edge = s->edges[2 * e], j = s->edges[2 * e + 1];
            const int32_t *later = ahead(s, e);
            fetch(s->rows + (int64_t)(later[0] >> 1) * RECORD, RECORD);
            __builtin_prefetch(s->directed + 3 * (int64_t)later[0], 1);
            real *f = s->directed + 3 * (int64_t)edge, u[3], y[9], bent[3], radial = 0;
            const real *row = row_of(s, edge, u, y);
            if (!row) {
                f[0] = f[1] = f[2] = 0;
                continue;
            }
            const real r = row[R_DISTANCE];
            const int32_t kind = s->species[j];
            vector along = {0}, across = {0};
#if MIXED
            const vector *of_kind = by_element + kind * RADIAL;
            if (!is_made[kind]) {
                is_made[kind] = 1;
                unmix(s, s->species[i], kind, g, by_element + kind * RADIAL);
            }
#else
            const vector *of_kind = g + kind * RADIAL;
#endif
            add_products(of_kind, row + R_SLOPE, row + R_VALUE, RADIAL, &along, &across);
#if MESSAGES
            const real *qj = q + (int64_t)j * MESSAGES;
            const real *vs = row + R_SENT, *ws = row + R_SENT_SLOPE;
            ON_LINES real vq[MESSAGES], wq[MESSAGES];
            for (int n = 0; n < MESSAGES; n++) {
                vq[n] = vs[n] * qj[n];
                wq[n] = ws[n] * qj[n];
            }
            add_products(g + FIXED, wq, vq, MESSAGES, &along, &across);
#endif
            const real inverse = 1 / r;
            for (int m = 1; m < 9; m++)
                across[m] *= inverse;
            for (int m = 0; m < 9; m++)
                radial += along[m] * y[m];
            for (int a = 0; a < 3; a++)
                radial -= across[1 + a] * u[a];
            for (int m = 4; m < 9; m++)
                radial -= 2 * across[m] * y[m];
            const real square[5] = {across[4], across[5], across[6], across[7], across[8]};
            tensor_times_vector(square, u, bent);
            const real *inner = p + P_INNER + 2 * (s->species[i] * SPECIES + kind);
            const real learned = smooth_step(r, inner[0], inner[1]);
            for (int a = 0; a < 3; a++)
                f[a] = (u[a] * radial + across[1 + a] + 2 * bent[a]) * learned;
        }
    }
}

static inline real zbl_force(real r, real zz, real length)
{
    static const real c[4] = {0.18175, 0.50986, 0.28022, 0.02817};
    static const real b[4] = {3.19980, 0.94229, 0.40290, 0.20162};
    real x = r / length, phi = 0, slope = 0;
    for (int k = 0; k < 4; k++) {
        real term = c[k] * REAL_EXP(-b[k] * x);
        phi += term;
        slope += b[k] * term;
    }
    return (real)14.399645478425668 * zz / r * (phi / r + slope / length);
}

#if NEAR_HIDDEN
enum { CHANNELS = NEAR_CHANNELS, NEAR_BLOCK = 2 * TILE };

/* Invariants of both atoms that the pair MLP sees. */
static inline void near_invariants(const system_t *s, int64_t h, const real *vectors,
                                   const real *tensors, int bounded, real *seen)
{
    enum { C = CHANNELS };
    const int64_t i = s->first[h], j = s->second[h];
    const real *vi = vectors + i * 3 * C, *vj = vectors + j * 3 * C;
    const real *ti = tensors + i * 5 * C, *tj = tensors + j * 5 * C;
    const real *u = s->unit + 3 * h;
    ON_LINES real y[9];
    harmonics(u, y);
    for (int c = 0; c < C; c++) {
        real ai = 0, aj = 0, vv = 0, qi = 0, qj = 0, tt = 0;
        for (int a = 0; a < 3; a++) {
            ai += vi[a * C + c] * u[a];
            aj -= vj[a * C + c] * u[a];
            vv += vi[a * C + c] * vj[a * C + c];
        }
        for (int a = 0; a < 5; a++) {
            qi += ti[a * C + c] * y[4 + a];
            qj += tj[a * C + c] * y[4 + a];
            tt += ti[a * C + c] * tj[a * C + c];
        }
        seen[c] = ai + aj;
        seen[C + c] = ai * aj;
        seen[2 * C + c] = vv;
        seen[3 * C + c] = qi + qj;
        seen[4 * C + c] = qi * qj;
        seen[5 * C + c] = tt;
    }
    if (bounded)
        for (int k = 0; k < 6 * C; k++) {
            real z = seen[k] * (real)(1.0 / FEATURE_BOUND);
            seen[k] /= REAL_SQRT(1 + z * z);
        }
}

/* The force of the pair MLP's outputs, added to f. */
static inline void near_force(const system_t *s, int64_t h, const real *vectors,
                              const real *tensors, real fc, const real *out, real *f)
{
    enum { C = CHANNELS };
    const int64_t i = s->first[h], j = s->second[h];
    const real *vi = vectors + i * 3 * C, *vj = vectors + j * 3 * C;
    const real *ti = tensors + i * 5 * C, *tj = tensors + j * 5 * C;
    const real *u = s->unit + 3 * h;
    real t[5], bent[3];
    for (int a = 0; a < 5; a++) {
        t[a] = 0;
        for (int c = 0; c < C; c++)
            t[a] += (ti[a * C + c] + tj[a * C + c]) * out[1 + C + c];
    }
    tensor_times_vector(t, u, bent);
    const real *inner = s->parameters + P_INNER + 2 * (s->species[i] * SPECIES + s->species[j]);
    const real fade = smooth_step(s->distance[h], inner[0], inner[1]) * fc;
    for (int a = 0; a < 3; a++) {
        real vector = 0;
        for (int c = 0; c < C; c++)
            vector += (vi[a * C + c] - vj[a * C + c]) * out[1 + c];
        f[a] += (u[a] * out[0] + vector + bent[a]) * fade;
    }
}

/* The pair MLP, of at most NEAR_BLOCK pairs together: NearNet.forward of student.py. */
static void near_forces(const system_t *s, const int64_t *pairs, int count, const real *scalars,
                        const real *vectors, const real *tensors, int bounded)
{
    enum { H = NEAR_HIDDEN, W = NEAR_WIDE };
    const real *p = s->parameters;
    ON_LINES real in[NEAR_BLOCK * NEAR_IN], hidden[NEAR_BLOCK * W], dense[NEAR_BLOCK * W];
    ON_LINES real out[NEAR_BLOCK * NEAR_OUT], fc[NEAR_BLOCK], r[NEAR_BLOCK];
    ON_LINES real s1[NEAR_BLOCK], c1[NEAR_BLOCK], sine[NEAR_BLOCK], cosine[NEAR_BLOCK];
    const real rc = p[P_CUTOFFS + 1], scale = rc / (real)PI;
    for (int b = 0; b < NEAR_BLOCK; b++)
        r[b] = s->distance[pairs[b < count ? b : 0]];
    for (int b = 0; b < NEAR_BLOCK; b++) {
        real unused;
        cutoff(r[b], rc, &fc[b], &unused);
        sine[b] = s1[b] = REAL_SIN(r[b] / scale);
    }
    for (int b = 0; b < NEAR_BLOCK; b++)
        cosine[b] = c1[b] = REAL_COS(r[b] / scale);
    for (int n = 0; n < NEAR_BESSEL; n++)
        for (int b = 0; b < NEAR_BLOCK; b++) {
            in[b * NEAR_IN + n] = sine[b] * scale / r[b] * fc[b];
            const real turned = sine[b] * c1[b] + cosine[b] * s1[b];
            cosine[b] = cosine[b] * c1[b] - sine[b] * s1[b];
            sine[b] = turned;
        }
    for (int b = 0; b < count; b++)
        near_invariants(s, pairs[b], vectors, tensors, bounded, in + b * NEAR_IN + NEAR_BESSEL);
    product(count, NEAR_LIFTED, W, in + NEAR_IN - NEAR_LIFTED, NEAR_IN, p + P_NEAR_FIRST, 0, hidden,
            W);
    for (int b = 0; b < count; b++) {
        const int64_t i = s->first[pairs[b]], j = s->second[pairs[b]];
#if MIXED
        const int zi = s->species[i], zj = s->species[j];
        const real *pi = scalars + i * H, *pj = scalars + j * H;
        const real *fi = p + P_NEAR_FACTOR + zi * W, *fj = p + P_NEAR_FACTOR + zj * W;
        const real *terms = p + P_NEAR_TERMS + (zi * SPECIES + zj) * (1 + NEAR_BESSEL) * W;
        ON_LINES real sum[W];
        for (int c = 0; c < W; c += LANES) {
            vector part = *(const vector *)(hidden + b * W + c) + *(const vector *)(terms + c);
            for (int n = 0; n < NEAR_BESSEL; n++)
                part += in[b * NEAR_IN + n] * *(const vector *)(terms + (1 + n) * W + c);
            *(vector *)(sum + c) = part;
        }
        for (int k = 0; k < H; k++)
            hidden[b * W + k] = silu(sum[k] + pi[k] * fj[k] + pj[k] * fi[k]);
#else
        const real *pi = scalars + (i * SPECIES + s->species[j]) * H;
        const real *pj = scalars + (j * SPECIES + s->species[i]) * H;
        for (int k = 0; k < H; k++)
            hidden[b * W + k] = silu(hidden[b * W + k] + pi[k] + pj[k]);
#endif
    }
    product(count, H, W, hidden, W, p + P_NEAR_DENSE, p + P_NEAR_DENSE_BIAS, dense, W);
    for (int b = 0; b < count; b++)
        for (int k = 0; k < H; k++)
            dense[b * W + k] = hidden[b * W + k] + silu(dense[b * W + k]);
    product(count, H, NEAR_OUT, dense, W, p + P_NEAR_LAST, p + P_NEAR_LAST_BIAS, out, NEAR_OUT);
    for (int b = 0; b < count; b++)
        near_force(s, pairs[b], vectors, tensors, fc[b], out + b * NEAR_OUT,
                   s->pair + 3 * pairs[b]);
}
#endif

/* Force on the first atom of each half pair of a range: wall and pair MLP, then the far part. */
void pair_forces(const system_t *s, const real *scalars, const real *vectors, const real *tensors,
                 const real *far, int bounded, int64_t h0, int64_t h1)
{
    const real *p = s->parameters, near_cutoff = p[P_CUTOFFS + 1];
    const int64_t end = h1 < s->n_near ? h1 : s->n_near;
    if (h1 > h0)
        memset(s->pair + 3 * h0, 0, (size_t)(h1 - h0) * 3 * sizeof *s->pair);
    for (int64_t h = h0; h < end; h++) {
        const real r = s->distance[h], *u = s->unit + 3 * h;
        const int kind = s->species[s->first[h]] * SPECIES + s->species[s->second[h]];
        const real *inner = p + P_INNER + 2 * kind;
        if (r < near_cutoff && r < inner[1]) {
            const real wall = zbl_force(r, p[P_CHARGES + kind], p[P_LENGTHS + kind]) *
                              (1 - smooth_step(r, inner[0], inner[1]));
            for (int a = 0; a < 3; a++)
                s->pair[3 * h + a] = -u[a] * wall;
        }
    }
#if NEAR_HIDDEN
    int64_t block[NEAR_BLOCK];
    int count = 0;
    for (int64_t h = h0; h < end; h++) {
        if (s->distance[h] < near_cutoff) {
            const int64_t j = s->second[h];
            fetch(scalars + j * PARTNERS * NEAR_HIDDEN, PARTNERS * NEAR_HIDDEN);
            fetch(vectors + j * 3 * NEAR_CHANNELS, 3 * NEAR_CHANNELS);
            fetch(tensors + j * 5 * NEAR_CHANNELS, 5 * NEAR_CHANNELS);
            block[count++] = h;
        }
        if (count == NEAR_BLOCK || (h + 1 == end && count)) {
            near_forces(s, block, count, scalars, vectors, tensors, bounded);
            count = 0;
        }
    }
#else
    (void)scalars, (void)vectors, (void)tensors, (void)bounded;
#endif
#if FAR_BESSEL
    const real rc = p[P_CUTOFFS + 2], scale = rc / (real)PI;
    for (int64_t start = h0; start < h1; start += LANES) {
        const int lanes = h1 - start < LANES ? (int)(h1 - start) : LANES;
        ON_LINES real r[LANES], s1[LANES], c1[LANES], sine[LANES], cosine[LANES], size[LANES];
        ON_LINES real both[FAR_BESSEL][LANES];
        for (int k = 0; k < LANES; k++) {
            const int64_t h = start + (k < lanes ? k : 0), i = s->first[h], j = s->second[h];
            const int zi = s->species[i], zj = s->species[j];
#if MIXED
            const real *a = far + i * FAR_BESSEL, *b = far + j * FAR_BESSEL;
            const real *fi = p + P_FAR_FACTOR + zi * FAR_BESSEL;
            const real *fj = p + P_FAR_FACTOR + zj * FAR_BESSEL;
#else
            const real *a = far + (i * SPECIES + zj) * FAR_BESSEL;
            const real *b = far + (j * SPECIES + zi) * FAR_BESSEL;
#endif
            const real *c = p + P_BASE_FAR + (zi * SPECIES + zj) * FAR_BESSEL;
            r[k] = s->distance[h];
            for (int n = 0; n < FAR_BESSEL; n++)
#if MIXED
                both[n][k] = a[n] * fj[n] + b[n] * fi[n] + 2 * c[n];
#else
                both[n][k] = a[n] + b[n] + 2 * c[n];
#endif
        }
        for (int k = 0; k < LANES; k++)
            sine[k] = s1[k] = REAL_SIN(r[k] / scale);
        for (int k = 0; k < LANES; k++)
            cosine[k] = c1[k] = REAL_COS(r[k] / scale);
        for (int k = 0; k < LANES; k++)
            size[k] = 0;
        for (int n = 0; n < FAR_BESSEL; n++)
            for (int k = 0; k < LANES; k++) {
                size[k] += sine[k] * both[n][k];
                real turned = sine[k] * c1[k] + cosine[k] * s1[k];
                cosine[k] = cosine[k] * c1[k] - sine[k] * s1[k];
                sine[k] = turned;
            }
        for (int k = 0; k < LANES; k++) {
            real fc, unused;
            cutoff(r[k], rc, &fc, &unused);
            size[k] *= fc * scale / r[k];
        }
        for (int k = 0; k < lanes; k++) {
            const int64_t h = start + k;
            const int kind = s->species[s->first[h]] * SPECIES + s->species[s->second[h]];
            const real *inner = p + P_INNER + 2 * kind;
            const real force = size[k] * smooth_step(r[k], inner[0], inner[1]);
            for (int a = 0; a < 3; a++)
                s->pair[3 * h + a] += s->unit[3 * h + a] * force;
        }
    }
#else
    (void)far;
#endif
}

/* Force on the first atom of a half pair by the other one. */
static inline void total_force(const system_t *s, int64_t h, double *f)
{
    for (int a = 0; a < 3; a++) {
        f[a] = s->pair[3 * h + a];
        if (h < s->n_rows)
            f[a] += (double)s->directed[6 * h + a] - s->directed[6 * h + 3 + a];
    }
}

/* Forces (n_atoms, 3) of a range of atoms. All pairs are read, in their order: that is faster than
   to look for those of each atom, and gives the same sums whatever the range. */
void sum_forces(const system_t *s, double *out, int64_t a0, int64_t a1)
{
    memset(out + 3 * a0, 0, (size_t)(a1 - a0) * 3 * sizeof *out);
    for (int64_t h = 0; h < s->n_pairs; h++) {
        const int64_t i = s->first[h], j = s->second[h];
        double f[3];
        total_force(s, h, f);
        if (i >= a0 && i < a1)
            for (int a = 0; a < 3; a++)
                out[3 * i + a] += f[a];
        if (j >= a0 && j < a1)
            for (int a = 0; a < 3; a++)
                out[3 * j + a] -= f[a];
    }
}

/* -sum r (x) F over half pairs (DOI 10.1021/acs.jctc.6c00653, section 2.7), (3, 3). */
void virial(const system_t *s, double *out)
{
    double w[9] = {0};
    for (int64_t h = 0; h < s->n_pairs; h++) {
        double f[3], r = s->distance[h];
        total_force(s, h, f);
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++)
                w[3 * a + b] -= s->unit[3 * h + a] * r * f[b];
    }
    memcpy(out, w, sizeof w);
}
