#pragma once
// Robust estimates and small-sample tests of significance, on plain numbers.
#include <span>
#include <vector>

namespace drydock::perfdb {

// Of at least one value; the mean of the middle two when there is an even number.
double median(std::vector<double> values);

// Shift of a sample that is symmetric about it: the median of the means of all pairs, each value with itself included
// (Hodges and Lehmann, 1963). Tolerates 29 % of outliers and is nearly as sharp as the mean. Of at least one value;
// above 1000 values, where pairs are many and the two hardly differ, the plain median.
double hodges_lehmann(const std::vector<double>& values);

// Standard deviation of the bulk of at least two values: the first quartile of the distances of all pairs, scaled to
// be unbiased for normal values (Qn of Rousseeuw and Croux, JASA 1993; small-sample factors of Croux and Rousseeuw,
// COMPSTAT 1992). Tolerates almost half outliers. Quadratic in the number of values.
double scale_qn(const std::vector<double>& values);

// Probability of a Wilcoxon signed-rank sum at least as large as that of `differences`, when they are symmetric about
// 0: small when they lie above 0. Zeros are left out; ties share their mean rank. Exact up to 25 differences, also with
// ties; above, the normal approximation with corrections for ties and continuity (Hollander and Wolfe, 1999, 3.1).
// 1 without differences.
double signed_rank_p(const std::vector<double>& differences);

// Probability that Student's t with `freedom` > 0 degrees of freedom, not necessarily whole, is at least `t`.
double student_t_p(double t, double freedom);

// Each p value as the smallest false discovery rate at which it counts as a discovery, in the order given
// (Benjamini and Hochberg, JRSS B 1995).
std::vector<double> false_discovery_rates(std::span<const double> p);

}  // namespace drydock::perfdb
