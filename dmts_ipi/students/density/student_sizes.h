/* Sizes and records that student_pairs.c and student_atoms.c share; see kernels.py. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define RADIAL (BESSEL + GAUSSIANS)
/* Blocks of densities that an atom's networks read: channels, each a mixture of elements, or one
   block for each element. */
#define BLOCKS (MIXED ? MIXED : SPECIES)
#define FIXED (BLOCKS * RADIAL)
#define PARTNERS (MIXED ? 1 : SPECIES) /* near and far heads of an atom */
#define ALL (FIXED + MESSAGES)
#define LANES 16
/* For local arrays: gcc 12 was seen to take one for aligned to 32 bytes that was not. */
#define ON_LINES __attribute__((aligned(64)))
#define PI 3.14159265358979323846
#define SILU_END 60

typedef REAL real;
typedef real vector __attribute__((vector_size(LANES * sizeof(real)), aligned(sizeof(real))));

typedef struct {
    int64_t n_atoms, n_near, n_rows, n_pairs;
    const int32_t *species; /* (n_atoms) */
    const int32_t *first, *second; /* (n_pairs) */
    const double *shifts; /* (n_pairs, 3), in cells */
    const int64_t *row_start; /* (n_atoms + 1): directed edges of each atom in edges */
    const int32_t *edges; /* 2 h + direction, and the neighbour; (2 n_rows, 2) */
    const double *x, *cell; /* (n_atoms, 3), (3, 3) */
    real *unit, *distance; /* (n_pairs, 3), (n_pairs) */
    real *rows; /* (n_rows, RECORD), on lines of the cache */
    real *directed, *pair; /* forces: (n_rows, 2, 3), (n_pairs, 3) */
    const real *parameters; /* as kernels.py lays them out */
} system_t;

#define PAD(n) (((n) + LANES - 1) / LANES * LANES)
#define NEAR_WIDE PAD(NEAR_HIDDEN)
#define NEAR_OUT PAD(1 + 2 * NEAR_CHANNELS)
/* With channels the Bessel functions enter by a matrix of the two elements. */
#define NEAR_IN (NEAR_BESSEL + 6 * NEAR_CHANNELS)
#define NEAR_LIFTED (MIXED ? 6 * NEAR_CHANNELS : NEAR_IN)

/* Offsets into a row: all that the sums over pairs read of a half pair lies together, first what
   the densities read, then the messages: in a large system each line comes from memory. */
enum {
    R_UNIT = 0, /* first component OUTSIDE: beyond the cutoff, nothing else is set */
    R_VALUE = 3, /* (RADIAL) */
    R_SENT = R_VALUE + RADIAL, /* (MESSAGES) */
    R_SENT_SLOPE = R_SENT + MESSAGES,
    R_SLOPE = R_SENT_SLOPE + MESSAGES,
    R_DISTANCE = R_SLOPE + RADIAL,
    RECORD = PAD(R_DISTANCE + 1)
};
#define OUTSIDE 2

/* Offsets into parameters. */
enum {
    P_CUTOFFS = 0, /* rows, near, far, gaussian width */
    P_CENTRES = P_CUTOFFS + 4,
    P_INNER = P_CENTRES + GAUSSIANS, /* low, high of each species pair */
    P_CHARGES = P_INNER + 2 * SPECIES * SPECIES,
    P_LENGTHS = P_CHARGES + SPECIES * SPECIES,
    P_BASE_FAR = P_LENGTHS + SPECIES * SPECIES,
    P_RHO = P_BASE_FAR + SPECIES * SPECIES * (FAR_BESSEL ? FAR_BESSEL : 1), /* (RADIAL, MESSAGES) */
    P_NEAR_FIRST = P_RHO + RADIAL * MESSAGES, /* (NEAR_LIFTED, NEAR_WIDE) */
    P_NEAR_DENSE = P_NEAR_FIRST + NEAR_LIFTED * NEAR_WIDE,
    P_NEAR_DENSE_BIAS = P_NEAR_DENSE + NEAR_HIDDEN * NEAR_WIDE,
    P_NEAR_LAST = P_NEAR_DENSE_BIAS + NEAR_WIDE, /* (NEAR_HIDDEN, NEAR_OUT) */
    P_NEAR_LAST_BIAS = P_NEAR_LAST + NEAR_HIDDEN * NEAR_OUT,
    P_COMMON_END = P_NEAR_LAST_BIAS + NEAR_OUT,
    /* With channels only, by element of the atom and of its neighbour: */
    P_MIXING = P_COMMON_END, /* (SPECIES, SPECIES, MIXED) */
    P_BASE = P_MIXING + SPECIES * SPECIES * MIXED, /* (SPECIES, SPECIES, RADIAL) */
    P_NEAR_FACTOR = P_BASE + SPECIES * SPECIES * RADIAL, /* (SPECIES, NEAR_WIDE) */
    P_NEAR_TERMS = P_NEAR_FACTOR + SPECIES * NEAR_WIDE, /* (.., .., 1 + NEAR_BESSEL, NEAR_WIDE) */
    P_FAR_FACTOR = P_NEAR_TERMS + SPECIES * SPECIES * (1 + NEAR_BESSEL) * NEAR_WIDE,
    P_END = MIXED ? P_FAR_FACTOR + SPECIES * FAR_BESSEL : P_COMMON_END
};

/* Of a range of atoms; student_pairs.c. */
void densities(const system_t *s, real *out, int64_t a0, int64_t a1);
void messages(const system_t *s, const real *q, real *out, int64_t a0, int64_t a1);
void gradient_forces(const system_t *s, const real *heads, const real *q, int64_t a0, int64_t a1);

#ifdef __AVX512F__
enum { TILE = 12 };
#else
enum { TILE = 6 };
#endif

/* c (rows, cols) = a (rows, k) w (k, cols) + bias; cols a multiple of LANES. */
static inline void product(int rows, int k, int cols, const real *a, int lda, const real *w,
                           const real *bias, real *c, int ldc)
{
    for (int r0 = 0; r0 < rows; r0 += TILE) {
        const int some = rows - r0 < TILE ? rows - r0 : TILE;
        const real *row[TILE];
        for (int r = 0; r < TILE; r++)
            row[r] = a + (r0 + (r < some ? r : 0)) * lda;
        for (int c0 = 0; c0 < cols; c0 += LANES) {
            ON_LINES vector sum[TILE];
            const vector start = bias ? *(const vector *)(bias + c0) : (vector){0};
            for (int r = 0; r < TILE; r++)
                sum[r] = start;
            for (int n = 0; n < k; n++) {
                const vector right = *(const vector *)(w + n * cols + c0);
                for (int r = 0; r < TILE; r++)
                    sum[r] += row[r][n] * right;
            }
            for (int r = 0; r < some; r++)
                *(vector *)(c + (r0 + r) * ldc + c0) = sum[r];
        }
    }
}

/* Bounded, because -ffast-math divides by an infinite exp to NaN; the value there is 0 anyhow. */
static inline real silu(real z) { return z / (1 + REAL_EXP(z < -SILU_END ? SILU_END : -z)); }

/* M u of the l = 2 components t: basis.tensor_times_vector. */
static inline void tensor_times_vector(const real *t, const real *u, real *out)
{
    const real h = (real)0.8660254037844386;
    out[0] = (h * t[4] - (real)0.5 * t[2]) * u[0] + h * t[0] * u[1] + h * t[3] * u[2];
    out[1] = h * t[0] * u[0] - (h * t[4] + (real)0.5 * t[2]) * u[1] + h * t[1] * u[2];
    out[2] = h * t[3] * u[0] + h * t[1] * u[1] + t[2] * u[2];
}
