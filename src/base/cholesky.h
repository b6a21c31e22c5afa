// Symmetric positive definite systems A x = b by Cholesky's factorisation.
#ifndef PARITYBIT_BASE_CHOLESKY_H_
#define PARITYBIT_BASE_CHOLESKY_H_

#include <cmath>
#include <cstddef>
#include <vector>

namespace pb {

// Puts the factor in the place of the lower triangle of A, (n, n). False: A is singular to rounding.
inline bool Factorise(size_t n, std::vector<double>* matrix) {
  std::vector<double>& a = *matrix;
  for (size_t i = 0; i < n; i++) {
    const double diagonal = a[i * n + i];
    for (size_t j = 0; j <= i; j++) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; k++) sum -= a[i * n + k] * a[j * n + k];
      if (i > j)
        a[i * n + j] = sum / a[j * n + j];
      else if (sum > 1e-10 * diagonal)
        a[i * n + i] = std::sqrt(sum);
      else
        return false;
    }
  }
  return true;
}

// x, by the factor.
inline std::vector<double> Solve(const std::vector<double>& factor, std::vector<double> b) {
  const size_t n = b.size();
  for (size_t i = 0; i < n; i++) {
    for (size_t k = 0; k < i; k++) b[i] -= factor[i * n + k] * b[k];
    b[i] /= factor[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; k++) b[i] -= factor[k * n + i] * b[k];
    b[i] /= factor[i * n + i];
  }
  return b;
}

}  // namespace pb

#endif  // PARITYBIT_BASE_CHOLESKY_H_
