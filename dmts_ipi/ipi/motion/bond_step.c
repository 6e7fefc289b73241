/* The loops over pairs of the bond thermostat.

   The operations of NumPy in bonds.py, number by number and in their order, so that momenta are the
   same to the last bit. Exponentials are left to NumPy, whose last digits are its own. Atomic units. */

#include <math.h>
#include <stdint.h>

typedef struct {
    int64_t atoms, listed, used;    /* used: pairs that have a weight */
    const double *listed_at;        /* (atoms, 3) positions of the list */
    const double *inverse_mass;     /* (atoms,) */
    const int64_t *i, *j;           /* (listed,) atoms of a pair */
    const double *image;            /* (listed, 3) from the nearest image of j to j */
    const double *off, *slope;      /* (listed,) distance of weight zero, 1 / width of its fall */
    const uint8_t *active;          /* (listed,) which pairs are used */
    const int64_t *use;             /* (used,) of the list, batch after batch */
    const double *mu;               /* (used,) reduced mass */
    double *d, *r, *weight;         /* (listed, 3), (listed,), (listed,): results */
} bonds_t;

int64_t bonds_size(void) { return sizeof(bonds_t); }

static double dot(const double *a, const double *b)
{
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/* The largest square of the distance of an atom from where it was listed. */
double bonds_moved(const bonds_t *s, const double *q)
{
    double largest = 0;
    for (int64_t k = 0; k < 3 * s->atoms; k += 3) {
        const double *at = s->listed_at + k;
        const double d[3] = {q[k] - at[0], q[k + 1] - at[1], q[k + 2] - at[2]};
        const double moved = dot(d, d);
        if (moved != moved)
            return moved;
        if (moved > largest)
            largest = moved;
    }
    return largest;
}

/* Distances and weights of all pairs of the list; whether those with a weight are those used. */
int64_t bonds_weights(const bonds_t *s, const double *q)
{
    int64_t same = 1;
    for (int64_t k = 0; k < s->listed; k++) {
        const double *a = q + 3 * s->i[k], *b = q + 3 * s->j[k];
        double *d = s->d + 3 * k;
        for (int c = 0; c < 3; c++)
            d[c] = a[c] - b[c] + s->image[3 * k + c];
        const double r = sqrt(dot(d, d));
        double x = (s->off[k] - r) * s->slope[k];
        if (x < 0)
            x = 0;
        if (x > 1)
            x = 1;
        const double weight = x * x * (3 - 2 * x);
        s->r[k] = r;
        s->weight[k] = weight;
        same &= (weight > 0) == (s->active[k] != 0);
    }
    return same;
}

static double twice_kinetic(const bonds_t *s, const double *p)
{
    double sum = 0;
    for (int64_t k = 0; k < s->atoms; k++)
        sum += dot(p + 3 * k, p + 3 * k) * s->inverse_mass[k];
    return sum;
}

/* Updates momenta pair by pair, in their order or its reverse. loss: c - 1, kick: (used,).
   Returns the energy that went to the bath. */
double bonds_update(const bonds_t *s, double *p, const double *loss, const double *kick,
                    int64_t forward)
{
    const double before = twice_kinetic(s, p);
    for (int64_t n = 0; n < s->used; n++) {
        const int64_t k = forward ? n : s->used - 1 - n, l = s->use[k];
        const int64_t i = s->i[l], j = s->j[l];
        const double *d = s->d + 3 * l, r = s->r[l];
        double *a = p + 3 * i, *b = p + 3 * j;
        double u[3], u_i[3], u_j[3];
        for (int c = 0; c < 3; c++) {
            u[c] = d[c] / r;
            u_i[c] = u[c] * s->inverse_mass[i];
            u_j[c] = u[c] * s->inverse_mass[j];
        }
        const double old = dot(a, u_i) - dot(b, u_j);
        const double impulse = s->mu[k] * loss[k] * old + kick[k];
        for (int c = 0; c < 3; c++) {
            const double along = impulse * u[c];
            a[c] += along;
            b[c] -= along;
        }
    }
    return 0.5 * (before - twice_kinetic(s, p));
}
