package user

import "infrado.cloud/headscale-operator/internal/controller/instance/instancetest"

// rights are those on HeadscaleUsers and namespaces that operators of this suite have made use of.
var rights = &instancetest.Rights{Resources: []string{"headscaleusers", "namespaces"}}

var _ = rights.DescribeLeast(cluster)
