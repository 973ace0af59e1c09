package main

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/podrunner"
)

// measurePreflights measures changes of a Headscale that runs, applied without a preflight and with one.
func measurePreflights(ctx context.Context, settings *settings) (rows []row) {
	inLab(ctx, settings, func(ctx context.Context, l *lab) {
		b, name := startOperator(ctx, l, 1), newHeadscale(operatorNamespace, 0).Name
		check(b.Admin.Create(ctx, newHeadscale(operatorNamespace, 0)))
		_, stop := podrunner.StartInWorld(l.World, client.ObjectKey{Namespace: operatorNamespace, Name: name}, l.output)
		defer stop()
		for _, mode := range []v1beta1.PreflightMode{v1beta1.PreflightNever, v1beta1.PreflightWhenPossible} {
			say("Changes with preflight: %s", mode)
			b.patch(ctx, 0, fmt.Sprintf(`{"spec":{"preflight":%q}}`, mode))
			before := b.awaitIdle(ctx)
			b.changing = nil
			b.change(ctx, func() {
				must(l.Plane.Kubectl(ctx, "wait", "-n", operatorNamespace, "headscale/"+name, "--for=condition=Ready", "--timeout=2m"))
			})
			rows = append(rows, preflightRows(mode, b.changing, b.awaitIdle(ctx).since(before).All)...)
		}
	})
	return rows
}

// preflightRows are about changes with a preflight of this mode, and the requests for all of them.
func preflightRows(mode v1beta1.PreflightMode, changing []time.Duration, requests int) []row {
	return []row{
		noted(fmt.Sprintf("preflight %s: changed until changed StatefulSet of a running Headscale, median", mode), "%.2f s", quantile(0.5, changing).Seconds()),
		noted(fmt.Sprintf("preflight %s: requests for a change and for its new pod", mode), "%.1f", float64(requests)/changes),
	}
}
