/* One inner step of BAOAB-RESPA between two forces: kicks, drift, thermostat, drift.

   The operations of NumPy in respa.py and thermostats.py, number by number and in their order, so
   that positions and momenta are the same to the last bit. Atomic units. */

#include <math.h>
#include <stdint.h>

typedef struct {
    int64_t n;              /* degrees of freedom, three to an atom */
    int64_t fast_forward;   /* only the length of the new velocity of an atom is used */
    double *q, *p;
    const double *drift;    /* half of the inner step over the mass */
    const double *root_mass;
    const double *decay;    /* exp(-step / tau) */
    const double *noise;    /* sqrt(kT (1 - decay^2)) */
} inner_t;

int64_t inner_size(void) { return sizeof(inner_t); }

void inner_kick_and_drift(const inner_t *s, const double *restrict force, double half,
                          int64_t kicks)
{
    double *restrict q = s->q, *restrict p = s->p;
    const double *restrict drift = s->drift;
    for (int64_t i = 0; i < s->n; i++) {
        const double kick = force[i] * half;
        double new = p[i] + kick;
        if (kicks > 1)
            new += kick;
        p[i] = new;
        q[i] += new * drift[i];
    }
}

/* Twice the kinetic energy before minus after. normal: (n,). */
static double langevin(const inner_t *s, const double *restrict normal)
{
    double *restrict p = s->p;
    const double *restrict root = s->root_mass, *restrict decay = s->decay;
    const double *restrict noise = s->noise;
    double before = 0, after = 0;
#pragma omp simd reduction(+ : before, after)
    for (int64_t i = 0; i < s->n; i++) {
        const double old = p[i] / root[i];
        const double drawn = noise[i] * normal[i];
        const double new = old * decay[i] + drawn;
        before += old * old;
        after += new * new;
        p[i] = new * root[i];
    }
    return before - after;
}

static double fast_forward(const inner_t *s, const double *restrict normal)
{
    double before = 0, after = 0;
    for (int64_t i = 0; i < s->n; i += 3) {
        double old[3], new[3];
        for (int k = 0; k < 3; k++) {
            old[k] = s->p[i + k] / s->root_mass[i + k];
            new[k] = old[k] * s->decay[i + k] + s->noise[i + k] * normal[i + k];
        }
        const double was = sqrt(old[0] * old[0] + old[1] * old[1] + old[2] * old[2]);
        const double is = sqrt(new[0] * new[0] + new[1] * new[1] + new[2] * new[2]);
        for (int k = 0; k < 3; k++) {
            if (was > 0)
                new[k] = old[k] * (is / was);
            before += old[k] * old[k];
            after += new[k] * new[k];
            s->p[i + k] = new[k] * s->root_mass[i + k];
        }
    }
    return before - after;
}

/* The O step; returns the energy that went to the bath. */
double inner_atoms(const inner_t *s, const double *normal)
{
    return 0.5 * (s->fast_forward ? fast_forward(s, normal) : langevin(s, normal));
}

void inner_drift(const inner_t *s)
{
    double *restrict q = s->q;
    const double *restrict p = s->p, *restrict drift = s->drift;
    for (int64_t i = 0; i < s->n; i++)
        q[i] += p[i] * drift[i];
}

/* All of it. Returns the energy that went to the bath. force: (n,), of the level; kicks: 1, or 2 where the
   second half of the step before is due. */
double inner_step(const inner_t *s, const double *force, double half, int64_t kicks,
                  const double *normal)
{
    inner_kick_and_drift(s, force, half, kicks);
    const double heat = inner_atoms(s, normal);
    inner_drift(s);
    return heat;
}
