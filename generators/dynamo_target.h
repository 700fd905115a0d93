#pragma once
// NVIDIA Dynamo on Kubernetes: a DynamoGraphDeployment, v1beta1 or v1alpha1, with its planner and the planner's data.
#include "generators/target.h"

namespace drydock::generators {

extern const Target kDynamo;

}  // namespace drydock::generators
