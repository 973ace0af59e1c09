package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

var _ = Describe("The protocol of Headscale's port", func() {
	It("is what the user says, while the port keeps its name", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  service: {app_protocol: tcp}\n")).To(Succeed())
		port := func(protocol OmegaMatcher) OmegaMatcher {
			return HaveField("Spec.Ports", ContainElement(And(HaveField("Name", "http"), HaveField("AppProtocol", protocol))))
		}
		service := get[corev1.Service](ctx, o.namespace, "headscale")
		Eventually(service).WithContext(ctx).Should(port(HaveValue(Equal("tcp"))))
		before := o.settle(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))

		Expect(patch(ctx, o.namespace, "headscale", "{spec: {service: {app_protocol: kubernetes.io/ws}}}")).To(Succeed())
		Eventually(service).WithContext(ctx).Should(port(HaveValue(Equal("kubernetes.io/ws"))))
		Expect(patch(ctx, o.namespace, "headscale", "{spec: {service: null}}")).To(Succeed())
		Eventually(service).WithContext(ctx).Should(port(BeNil()))
		Expect(patch(ctx, o.namespace, "headscale", "{spec: {service: {app_protocol: not a name}}}")).To(
			MatchError(ContainSubstring("service.app_protocol must be a protocol's name, such as tcp")))
	})
})
