package policy

import "infrado.cloud/headscale-operator/internal/controller/instance/instancetest"

// rights are those that the operators of this suite make use of.
var rights = &instancetest.Rights{Resources: []string{"headscalepolicies"}}

var _ = rights.DescribeLeast(cluster)
