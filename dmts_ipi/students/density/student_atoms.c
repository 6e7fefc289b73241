/* The networks of the student's atoms, for CPUs: AtomNet of student.py, in its order.

   Atoms are taken in blocks of one species, each with its sums over pairs (student_pairs.c): what
   they leave is in the cache. Matrices are stored (inputs, outputs), outputs padded
   to a multiple of LANES; A_SIZE values for each species, as kernels.py lays them out. */

#include "student_sizes.h"

enum {
    C = HEAD_CHANNELS,
    T = TRIPLES,
    I = INVARIANTS,
    INV = 2 * I + T, /* invariants of one stage */
    GATES = 2 * C + 2 * T,
    NEAR_GATES = 2 * NEAR_CHANNELS,
    NEAR_SCALARS = NEAR_HIDDEN * PARTNERS,
    FAR_SCALARS = FAR_BESSEL * PARTNERS,
    LIFT1 = FIXED + INV,
    LIFT2 = HIDDEN + MESSAGES + INV,
    ATOMS = 12 /* of a block */
};

enum {
    A_MEAN0 = 0,
    A_SCALE0 = A_MEAN0 + FIXED,
    A_SCALE1 = A_SCALE0 + FIXED,
    A_SCALE2 = A_SCALE1 + FIXED,
    A_MESSAGE_SCALE = A_SCALE2 + FIXED,
    A_BASE = A_MESSAGE_SCALE + 3, /* (ALL) added to G of l = 0 */
    A_INV1_MIX1 = A_BASE + ALL,
    A_INV1_MIX2 = A_INV1_MIX1 + FIXED * PAD(2 * I),
    A_INV1_MEAN = A_INV1_MIX2 + FIXED * PAD(2 * I),
    A_INV1_SCALE = A_INV1_MEAN + INV,
    A_LIFT1 = A_INV1_SCALE + INV,
    A_LIFT1_BIAS = A_LIFT1 + LIFT1 * PAD(HIDDEN),
    A_DENSE1 = A_LIFT1_BIAS + PAD(HIDDEN),
    A_DENSE1_BIAS = A_DENSE1 + HIDDEN * PAD(HIDDEN),
    A_SEND = A_DENSE1_BIAS + PAD(HIDDEN),
    A_SEND_BIAS = A_SEND + HIDDEN * PAD(MESSAGES),
    A_INV2_MIX1 = A_SEND_BIAS + PAD(MESSAGES),
    A_INV2_MIX2 = A_INV2_MIX1 + ALL * PAD(2 * I),
    A_INV2_MEAN = A_INV2_MIX2 + ALL * PAD(2 * I),
    A_INV2_SCALE = A_INV2_MEAN + INV,
    A_LIFT2 = A_INV2_SCALE + INV,
    A_LIFT2_BIAS = A_LIFT2 + LIFT2 * PAD(HIDDEN),
    A_DENSE2 = A_LIFT2_BIAS + PAD(HIDDEN),
    A_DENSE2_BIAS = A_DENSE2 + HIDDEN * PAD(HIDDEN),
    A_GATES = A_DENSE2_BIAS + PAD(HIDDEN),
    A_GATES_BIAS = A_GATES + HIDDEN * PAD(GATES),
    A_MIX1 = A_GATES_BIAS + PAD(GATES),
    A_MIX2 = A_MIX1 + ALL * PAD(C),
    A_G0 = A_MIX2 + ALL * PAD(C),
    A_G0_BIAS = A_G0 + HIDDEN * PAD(ALL),
    A_OUT1 = A_G0_BIAS + PAD(ALL),
    A_OUT2 = A_OUT1 + (C + T) * PAD(ALL),
    A_NEAR = A_OUT2 + (C + T) * PAD(ALL),
    A_NEAR_BIAS = A_NEAR + HIDDEN * PAD(NEAR_SCALARS),
    A_NEAR_MIX1 = A_NEAR_BIAS + PAD(NEAR_SCALARS),
    A_NEAR_MIX2 = A_NEAR_MIX1 + ALL * PAD(NEAR_CHANNELS),
    A_NEAR_GATES = A_NEAR_MIX2 + ALL * PAD(NEAR_CHANNELS),
    A_NEAR_GATES_BIAS = A_NEAR_GATES + HIDDEN * PAD(NEAR_GATES),
    A_FAR = A_NEAR_GATES_BIAS + PAD(NEAR_GATES),
    A_FAR_BIAS = A_FAR + HIDDEN * PAD(FAR_SCALARS),
    A_SIZE = A_FAR_BIAS + PAD(FAR_SCALARS)
};

int64_t atom_parameter_count(void) { return A_SIZE; }

static inline real bound(real z)
{
    const real y = z * (real)(1.0 / FEATURE_BOUND);
    return z / REAL_SQRT(1 + y * y);
}

/* x of a row (HIDDEN), over its root mean square where the architecture normalises. */
static inline void normalise(const real *x, real *out)
{
#if NORMALISE
    real sum = 0;
    for (int k = 0; k < HIDDEN; k++)
        sum += x[k] * x[k];
    const real factor = 1 / REAL_SQRT(sum / HIDDEN + (real)NORM_FLOOR);
#else
    const real factor = 1;
#endif
    for (int k = 0; k < HIDDEN; k++)
        out[k] = x[k] * factor;
}

/* The l = 2 part of two vectors: basis.vectors_to_tensor. */
static inline void vectors_to_tensor(const real p[3], const real q[3], real t[5])
{
    const real h = (real)0.8660254037844386;
    t[0] = h * (p[0] * q[1] + p[1] * q[0]);
    t[1] = h * (p[1] * q[2] + p[2] * q[1]);
    t[2] = p[2] * q[2] - (real)0.5 * (p[0] * q[0] + p[1] * q[1]);
    t[3] = h * (p[0] * q[2] + p[2] * q[0]);
    t[4] = h * (p[0] * q[0] - p[1] * q[1]);
}

/* Standardised, bounded V.V', T:T', V.T.V' of atoms: out (atoms, ld), INV columns are written. */
static void invariants(int atoms, int features, const real *a1, const real *a2, const real *mix1,
                       const real *mix2, const real *mean, const real *scale, real *out, int ld)
{
    enum { W = PAD(2 * I) };
    ON_LINES real pq[ATOMS * 3 * W], st[ATOMS * 5 * W];
    product(3 * atoms, features, W, a1, ALL, mix1, 0, pq, W);
    product(5 * atoms, features, W, a2, ALL, mix2, 0, st, W);
    for (int b = 0; b < atoms; b++) {
        const real *p = pq + b * 3 * W, *s = st + b * 5 * W;
        ON_LINES real z[INV];
        for (int k = 0; k < I; k++) {
            real v = 0, t = 0;
            for (int a = 0; a < 3; a++)
                v += p[a * W + k] * p[a * W + I + k];
            for (int a = 0; a < 5; a++)
                t += s[a * W + k] * s[a * W + I + k];
            z[k] = v;
            z[I + k] = t;
        }
        for (int k = 0; k < T; k++) {
            const real v[3] = {p[k], p[W + k], p[2 * W + k]};
            const real w[3] = {p[I + k], p[W + I + k], p[2 * W + I + k]};
            real m[5], sum = 0;
            vectors_to_tensor(v, w, m);
            for (int a = 0; a < 5; a++)
                sum += m[a] * s[a * W + k];
            z[2 * I + k] = sum;
        }
        for (int k = 0; k < INV; k++)
            out[b * ld + k] = bound((z[k] - mean[k]) * scale[k]);
    }
}

/* x = x0 + silu(seen W1 + b1), then norm(x + silu(norm(x) W2 + b2)); x0 may be absent. */
static void two_layers(int atoms, int k, const real *seen, const real *w1, const real *b1,
                       const real *w2, const real *b2, const real *x0, real *x)
{
    enum { W = PAD(HIDDEN) };
    ON_LINES real h[ATOMS * W], n[ATOMS * HIDDEN];
    product(atoms, k, W, seen, k, w1, b1, h, W);
    for (int b = 0; b < atoms; b++) {
        for (int c = 0; c < HIDDEN; c++)
            x[b * HIDDEN + c] = (x0 ? x0[b * HIDDEN + c] : 0) + silu(h[b * W + c]);
        normalise(x + b * HIDDEN, n + b * HIDDEN);
    }
    product(atoms, HIDDEN, W, n, HIDDEN, w2, b2, h, W);
    for (int b = 0; b < atoms; b++) {
        for (int c = 0; c < HIDDEN; c++)
            x[b * HIDDEN + c] += silu(h[b * W + c]);
        normalise(x + b * HIDDEN, x + b * HIDDEN);
    }
}

/* Scaled l = 1 (3 atoms, ALL) and l = 2 (5 atoms, ALL) features; messages may be absent. */
static void equivariants(int atoms, const real *p, const real *density, const real *message,
                         real *a1, real *a2)
{
    for (int b = 0; b < atoms; b++)
        for (int m = 1; m < 9; m++) {
            real *to = m < 4 ? a1 + (b * 3 + m - 1) * ALL : a2 + (b * 5 + m - 4) * ALL;
            const real *scale = p + (m < 4 ? A_SCALE1 : A_SCALE2);
            const real *from = density + (b * 9 + m) * FIXED;
            for (int n = 0; n < FIXED; n++)
                to[n] = from[n] * scale[n];
            if (message)
                for (int n = 0; n < MESSAGES; n++)
                    to[FIXED + n] = message[(b * 9 + m) * MESSAGES + n] *
                                    p[A_MESSAGE_SCALE + (m < 4 ? 1 : 2)];
        }
}

/* The end of the block that starts at atom i: same species, at most ATOMS, below a1. */
static int block(const system_t *s, int64_t i, int64_t a1)
{
    int count = 1;
    while (count < ATOMS && i + count < a1 && s->species[i + count] == s->species[i])
        count++;
    return count;
}

/* Densities (n, 9, FIXED), and from them hidden features x (n, HIDDEN) and messages q (n, MESSAGES).

   Sums over pairs are taken block by block, too: what one leaves is in the cache for the next. */
void first_stage(const system_t *s, const real *parameters, real *density, real *x, real *q,
                 int64_t i0, int64_t i1)
{
    for (int64_t i = i0; i < i1;) {
        const int atoms = block(s, i, i1);
        const real *p = parameters + (int64_t)s->species[i] * A_SIZE;
        real *d = density + i * 9 * FIXED;
        densities(s, d, i, i + atoms);
        ON_LINES real a1[ATOMS * 3 * ALL], a2[ATOMS * 5 * ALL], seen[ATOMS * LIFT1];
        equivariants(atoms, p, d, 0, a1, a2);
        for (int b = 0; b < atoms; b++)
            for (int n = 0; n < FIXED; n++) {
                real z = (d[b * 9 * FIXED + n] - p[A_MEAN0 + n]) * p[A_SCALE0 + n];
                seen[b * LIFT1 + n] = NORMALISE ? bound(z) : z;
            }
        invariants(atoms, FIXED, a1, a2, p + A_INV1_MIX1, p + A_INV1_MIX2, p + A_INV1_MEAN,
                   p + A_INV1_SCALE, seen + FIXED, LIFT1);
        two_layers(atoms, LIFT1, seen, p + A_LIFT1, p + A_LIFT1_BIAS, p + A_DENSE1,
                   p + A_DENSE1_BIAS, 0, x + i * HIDDEN);
#if MESSAGES
        ON_LINES real sent[ATOMS * PAD(MESSAGES)];
        product(atoms, HIDDEN, PAD(MESSAGES), x + i * HIDDEN, HIDDEN, p + A_SEND, p + A_SEND_BIAS,
                sent, PAD(MESSAGES));
        for (int b = 0; b < atoms; b++)
            memcpy(q + (i + b) * MESSAGES, sent + b * PAD(MESSAGES), MESSAGES * sizeof(real));
#else
        (void)q;
#endif
        i += atoms;
    }
}

/* Gradient-shaped forces along the edges, and what pair_forces needs of atoms: near scalars
   (n, NEAR_SCALARS), vectors (n, 3, NEAR_CHANNELS), tensors (n, 5, NEAR_CHANNELS); far scalars
   (n, FAR_SCALARS). */
void second_stage(const system_t *s, const real *parameters, const real *density,
                  const real *hidden, const real *q, real *scalars, real *vectors, real *tensors,
                  real *far, int64_t i0, int64_t i1)
{
    for (int64_t i = i0; i < i1;) {
        const int atoms = block(s, i, i1);
        const real *p = parameters + (int64_t)s->species[i] * A_SIZE;
        ON_LINES real a1[ATOMS * 3 * ALL], a2[ATOMS * 5 * ALL];
        ON_LINES real x[ATOMS * HIDDEN], small[ATOMS * HIDDEN];
        ON_LINES real heads[ATOMS * 9 * ALL], message[ATOMS * 9 * MESSAGES + 1];
        messages(s, q, message, i, i + atoms);
        equivariants(atoms, p, density + i * 9 * FIXED, MESSAGES ? message : 0, a1, a2);
#if MESSAGES
        ON_LINES real seen[ATOMS * LIFT2];
        for (int b = 0; b < atoms; b++) {
            memcpy(seen + b * LIFT2, hidden + (i + b) * HIDDEN, HIDDEN * sizeof(real));
            for (int n = 0; n < MESSAGES; n++) {
                real z = message[b * 9 * MESSAGES + n] * p[A_MESSAGE_SCALE];
                seen[b * LIFT2 + HIDDEN + n] = NORMALISE ? bound(z) : z;
            }
        }
        invariants(atoms, ALL, a1, a2, p + A_INV2_MIX1, p + A_INV2_MIX2, p + A_INV2_MEAN,
                   p + A_INV2_SCALE, seen + HIDDEN + MESSAGES, LIFT2);
        two_layers(atoms, LIFT2, seen, p + A_LIFT2, p + A_LIFT2_BIAS, p + A_DENSE2,
                   p + A_DENSE2_BIAS, hidden + i * HIDDEN, x);
#else
        memcpy(x, hidden + i * HIDDEN, (size_t)atoms * HIDDEN * sizeof(real));
#endif
        for (int k = 0; k < atoms * HIDDEN; k++)
            small[k] = NORMALISE ? x[k] * (real)HEAD_SCALE : x[k];

        enum { WG = PAD(GATES), WC = PAD(C), WA = PAD(ALL), IN = C + T };
        ON_LINES real gates[ATOMS * WG], v[ATOMS * 3 * WC], w[ATOMS * 5 * WC];
        ON_LINES real v_out[ATOMS * 3 * IN], w_out[ATOMS * 5 * IN], g[ATOMS * 5 * WA];
        product(atoms, HIDDEN, WG, small, HIDDEN, p + A_GATES, p + A_GATES_BIAS, gates, WG);
        product(3 * atoms, ALL, WC, a1, ALL, p + A_MIX1, 0, v, WC);
        product(5 * atoms, ALL, WC, a2, ALL, p + A_MIX2, 0, w, WC);
        for (int b = 0; b < atoms; b++) {
            const real *gate = gates + b * WG, *vb = v + b * 3 * WC, *wb = w + b * 5 * WC;
            real *vo = v_out + b * 3 * IN, *wo = w_out + b * 5 * IN;
            for (int a = 0; a < 3; a++)
                for (int c = 0; c < C; c++)
                    vo[a * IN + c] = vb[a * WC + c] * gate[c];
            for (int a = 0; a < 5; a++)
                for (int c = 0; c < C; c++)
                    wo[a * IN + c] = wb[a * WC + c] * gate[C + c];
            for (int k = 0; k < T; k++) {
                const real u[3] = {vb[k], vb[WC + k], vb[2 * WC + k]};
                const real t[5] = {wb[k], wb[WC + k], wb[2 * WC + k], wb[3 * WC + k],
                                   wb[4 * WC + k]};
                real bent[3], square[5];
                tensor_times_vector(t, u, bent);
                vectors_to_tensor(u, u, square);
                for (int a = 0; a < 3; a++)
                    vo[a * IN + C + k] = bent[a] * gate[2 * C + k];
                for (int a = 0; a < 5; a++)
                    wo[a * IN + C + k] = square[a] * gate[2 * C + T + k];
            }
        }
        product(atoms, HIDDEN, WA, small, HIDDEN, p + A_G0, p + A_G0_BIAS, g, WA);
        for (int b = 0; b < atoms; b++)
            for (int n = 0; n < ALL; n++)
                heads[b * 9 * ALL + n] = g[b * WA + n] + p[A_BASE + n];
        product(3 * atoms, IN, WA, v_out, IN, p + A_OUT1, 0, g, WA);
        for (int b = 0; b < atoms; b++)
            for (int a = 0; a < 3; a++)
                memcpy(heads + (b * 9 + 1 + a) * ALL, g + (b * 3 + a) * WA,
                       ALL * sizeof(real));
        product(5 * atoms, IN, WA, w_out, IN, p + A_OUT2, 0, g, WA);
        for (int b = 0; b < atoms; b++)
            for (int a = 0; a < 5; a++)
                memcpy(heads + (b * 9 + 4 + a) * ALL, g + (b * 5 + a) * WA,
                       ALL * sizeof(real));
        gradient_forces(s, heads, q, i, i + atoms);
#if NEAR_HIDDEN
        enum { WN = PAD(NEAR_SCALARS), WV = PAD(NEAR_CHANNELS), WT = PAD(NEAR_GATES) };
        ON_LINES real near[ATOMS * WN], near_v[ATOMS * 3 * WV], near_t[ATOMS * 5 * WV];
        ON_LINES real near_gates[ATOMS * WT];
        product(atoms, HIDDEN, WN, x, HIDDEN, p + A_NEAR, p + A_NEAR_BIAS, near, WN);
        product(3 * atoms, ALL, WV, a1, ALL, p + A_NEAR_MIX1, 0, near_v, WV);
        product(5 * atoms, ALL, WV, a2, ALL, p + A_NEAR_MIX2, 0, near_t, WV);
        product(atoms, HIDDEN, WT, small, HIDDEN, p + A_NEAR_GATES, p + A_NEAR_GATES_BIAS,
                near_gates, WT);
        for (int b = 0; b < atoms; b++) {
            const real *gate = near_gates + b * WT;
            memcpy(scalars + (i + b) * NEAR_SCALARS, near + b * WN, NEAR_SCALARS * sizeof(real));
            for (int a = 0; a < 3; a++)
                for (int c = 0; c < NEAR_CHANNELS; c++)
                    vectors[((i + b) * 3 + a) * NEAR_CHANNELS + c] =
                        near_v[(b * 3 + a) * WV + c] * (1 + gate[c]);
            for (int a = 0; a < 5; a++)
                for (int c = 0; c < NEAR_CHANNELS; c++)
                    tensors[((i + b) * 5 + a) * NEAR_CHANNELS + c] =
                        near_t[(b * 5 + a) * WV + c] * (1 + gate[NEAR_CHANNELS + c]);
        }
#else
        (void)scalars, (void)vectors, (void)tensors;
#endif
#if FAR_BESSEL
        enum { WF = PAD(FAR_SCALARS) };
        ON_LINES real tail[ATOMS * WF];
        product(atoms, HIDDEN, WF, small, HIDDEN, p + A_FAR, p + A_FAR_BIAS, tail, WF);
        for (int b = 0; b < atoms; b++)
            memcpy(far + (i + b) * FAR_SCALARS, tail + b * WF, FAR_SCALARS * sizeof(real));
#else
        (void)far;
#endif
        i += atoms;
    }
}
