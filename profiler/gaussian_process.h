#pragma once
// Regression with uncertainty over a few axes (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006).
#include <Eigen/Core>
#include <vector>

namespace drydock::profiler {

// Covariance of f at x and x':
//   level + additive / axes * sum over axes of M(|x_d - x'_d| / length_d) + joint * M(|(x - x') / length|)
// with M the Matern function of smoothness 5/2 (ibid., 4.17). Measured values have `noise` on top. All variances.
struct Covariance {
  double level = 4, additive = 0.15, joint = 0.05, noise = 4e-4;
  Eigen::VectorXd length;  // per axis

  double operator()(const Eigen::VectorXd& a, const Eigen::VectorXd& b) const;
  // Rows of `a` against rows of `b`.
  Eigen::MatrixXd operator()(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) const;
};
Covariance usual_covariance(Eigen::Index axes);

class GaussianProcess {
 public:
  // `x`: one row a point, `y`: its value. One point at least.
  GaussianProcess(Eigen::MatrixXd x, const Eigen::VectorXd& y, const Covariance& covariance);

  const Covariance& covariance() const { return covariance_; }
  double log_likelihood() const { return log_likelihood_; }

  Eigen::VectorXd mean(const Eigen::MatrixXd& at) const;
  // Of f, noise not counted.
  Eigen::VectorXd variance(const Eigen::MatrixXd& at) const;
  Eigen::MatrixXd posterior(const Eigen::MatrixXd& at) const;  // covariance of f between all rows

  struct LeftOut {
    Eigen::VectorXd error;      // value - prediction from all other points
    Eigen::VectorXd deviation;  // that the prediction claims, noise counted
  };
  // In closed form (ibid., 5.12).
  LeftOut leave_one_out() const;

 private:
  Eigen::MatrixXd x_, factor_;  // factor_: lower Cholesky
  Eigen::VectorXd weights_;     // K^-1 y
  Covariance covariance_;
  double log_likelihood_ = 0;
};

// The covariance near `start` that makes the values most likely, each logarithm held by a normal prior around
// `start`'s: deviation 0.7, of the noise 1.2. Coordinate-wise search; deterministic.
Covariance fit_covariance(const Eigen::MatrixXd& x, const Eigen::VectorXd& y, const Covariance& start);

}  // namespace drydock::profiler
