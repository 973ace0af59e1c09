module infrado.cloud/headscale-operator/test/servers/headscale/v0.28.0

go 1.26.0

tool github.com/juanfont/headscale/cmd/headscale

require github.com/juanfont/headscale v0.28.0
