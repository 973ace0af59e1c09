package preauthkey

import "infrado.cloud/headscale-operator/internal/controller/instance/instancetest"

// rights are those on HeadscalePreAuthKeys that operators of this suite have made use of. (Those on
// Secrets are shared with what the operator grants to API Key Managers.)
var rights = &instancetest.Rights{Resources: []string{"headscalepreauthkeys"}}

var _ = rights.DescribeLeast(cluster)
