#include "profiler/gaussian_process.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>

namespace drydock::profiler {
namespace {

double matern(double r) {
  const double s = std::sqrt(5.0) * r;
  return (1 + s + s * s / 3) * std::exp(-s);
}

constexpr double kLeastNoise = 4e-6;  // (0.2 %)^2: no timing repeats better

// The logarithms that the fit moves: additive, joint, noise, lengths.
Eigen::VectorXd logs(const Covariance& c) {
  Eigen::VectorXd out(3 + c.length.size());
  out << std::log(c.additive), std::log(c.joint), std::log(c.noise), c.length.array().log().matrix();
  return out;
}

Covariance from_logs(const Eigen::VectorXd& z, double level) {
  Covariance c;
  c.level = level;
  c.additive = std::exp(z[0]);
  c.joint = std::exp(z[1]);
  c.noise = std::max(std::exp(z[2]), kLeastNoise);
  c.length = z.tail(z.size() - 3).array().exp().matrix();
  return c;
}

double log_prior(const Eigen::VectorXd& z, const Eigen::VectorXd& middle) {
  double sum = 0;
  for (Eigen::Index i = 0; i < z.size(); ++i) {
    // Variances go over more than lengths do.
    const double width = i == 2 ? 1.6 : i < 2 ? 1.2 : 0.7;
    sum -= 0.5 * (z[i] - middle[i]) * (z[i] - middle[i]) / (width * width);
  }
  return sum;
}

}  // namespace

double Covariance::operator()(const Eigen::VectorXd& a, const Eigen::VectorXd& b) const {
  double sum = 0, square = 0;
  for (Eigen::Index d = 0; d < length.size(); ++d) {
    const double r = std::abs(a[d] - b[d]) / length[d];
    sum += matern(r);
    square += r * r;
  }
  const auto axes = static_cast<double>(std::max<Eigen::Index>(length.size(), 1));
  return level + additive * sum / axes + joint * matern(std::sqrt(square));
}

Eigen::MatrixXd Covariance::operator()(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) const {
  const auto axes = static_cast<double>(std::max<Eigen::Index>(length.size(), 1));
  Eigen::ArrayXXd square = Eigen::ArrayXXd::Zero(a.rows(), b.rows()), sum = square;
  const double root = std::sqrt(5.0);
  for (Eigen::Index d = 0; d < length.size(); ++d) {
    const Eigen::ArrayXXd r =
        (a.col(d).replicate(1, b.rows()) - b.col(d).transpose().replicate(a.rows(), 1)).array() / length[d];
    square += r.square();
    const Eigen::ArrayXXd s = root * r.abs();
    sum += (1 + s + s.square() / 3) * (-s).exp();
  }
  const Eigen::ArrayXXd s = root * square.sqrt();
  return (level + additive / axes * sum + joint * (1 + s + s.square() / 3) * (-s).exp()).matrix();
}

Covariance usual_covariance(Eigen::Index axes) {
  Covariance c;
  c.length = Eigen::VectorXd::Constant(axes, 3);  // octaves
  return c;
}

GaussianProcess::GaussianProcess(Eigen::MatrixXd x, const Eigen::VectorXd& y, const Covariance& covariance)
    : x_(std::move(x)), covariance_(covariance) {
  assert(x_.rows() == y.size() && y.size() > 0);
  Eigen::MatrixXd k = covariance_(x_, x_);
  k.diagonal().array() += covariance_.noise;
  const Eigen::LLT<Eigen::MatrixXd> cholesky(k);
  factor_ = cholesky.matrixL();
  weights_ = cholesky.solve(y);
  log_likelihood_ = -0.5 * y.dot(weights_) - factor_.diagonal().array().log().sum() -
                    0.5 * static_cast<double>(y.size()) * std::log(2 * std::numbers::pi);
}

Eigen::VectorXd GaussianProcess::mean(const Eigen::MatrixXd& at) const { return covariance_(at, x_) * weights_; }

Eigen::VectorXd GaussianProcess::variance(const Eigen::MatrixXd& at) const {
  const Eigen::MatrixXd whitened = factor_.triangularView<Eigen::Lower>().solve(covariance_(x_, at));
  const double before = covariance_.level + covariance_.additive + covariance_.joint;
  return (before - whitened.colwise().squaredNorm().transpose().array()).max(0).matrix();
}

Eigen::MatrixXd GaussianProcess::posterior(const Eigen::MatrixXd& at) const {
  const Eigen::MatrixXd whitened = factor_.triangularView<Eigen::Lower>().solve(covariance_(x_, at));
  return covariance_(at, at) - whitened.transpose() * whitened;
}

GaussianProcess::LeftOut GaussianProcess::leave_one_out() const {
  const Eigen::MatrixXd inverse_factor =
      factor_.triangularView<Eigen::Lower>().solve(Eigen::MatrixXd::Identity(factor_.rows(), factor_.cols()));
  const Eigen::ArrayXd precision = inverse_factor.colwise().squaredNorm().transpose().array();
  return {(weights_.array() / precision).matrix(), precision.rsqrt().matrix()};
}

Covariance fit_covariance(const Eigen::MatrixXd& x, const Eigen::VectorXd& y, const Covariance& start) {
  constexpr double kFirstStep = 0.8, kLastStep = 0.15;
  const Eigen::VectorXd middle = logs(start);
  const auto score = [&](const Eigen::VectorXd& z) {
    const double value = GaussianProcess(x, y, from_logs(z, start.level)).log_likelihood() + log_prior(z, middle);
    return std::isfinite(value) ? value : -1e300;
  };
  Eigen::VectorXd best = middle;
  double most = score(best);
  for (double step = kFirstStep; step > kLastStep; step /= 2)
    for (int sweep = 0; sweep < 2; ++sweep)
      for (Eigen::Index i = 0; i < best.size(); ++i)
        for (const double move : {step, -step}) {
          Eigen::VectorXd z = best;
          z[i] += move;
          if (const double value = score(z); value > most) {
            most = value;
            best = z;
            break;
          }
        }
  return from_logs(best, start.level);
}

}  // namespace drydock::profiler
