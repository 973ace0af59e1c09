package podrunner

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// The main container tells what it sees, counts its starts in the claim, and then
// waits to be ended. The other one is kubectl with the pod's token.
const statefulSetYAML = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: default}
spec:
  replicas: 1
  serviceName: web
  selector: {matchLabels: {app: web}}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      terminationGracePeriodSeconds: 30
      containers:
      - name: main
        image: registry.example.com:5000/shell:v1
        command: [anything, -c]
        args:
        - |
          trap 'exit 0' TERM
          echo start >>/data/starts; echo mark >>/scratch/mark
          echo "ns=$POD_NAMESPACE generation=$GENERATION pass=$PASSWORD starts=$(wc -l </data/starts) marks=$(wc -l </scratch/mark)"
          cat /etc/web/web.conf; echo
          while [ ! -e /scratch/end ]; do sleep 0.05; done
          rm /scratch/end; exit 7
        env:
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: GENERATION, value: "1"}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: web, key: password}}}
        volumeMounts:
        - {name: data, mountPath: /data}
        - {name: scratch, mountPath: /scratch}
        - {name: config, mountPath: /etc/web}
      - name: client
        image: kubectl:v1
        args: [get, secret, web]
        volumeMounts:
        - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}
      volumes:
      - {name: scratch, emptyDir: {}}
      - {name: config, configMap: {name: web}}
      - name: token
        projected:
          sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3600}
          - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
          - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
`

var _ = Describe("A pod", Ordered, func() {
	var (
		admin  client.Client
		guard  *process.Guard
		runner *Runner
		key    = client.ObjectKey{Namespace: "default", Name: "web"}
	)

	BeforeAll(func() {
		SetDefaultEventuallyTimeout(30 * time.Second)
		root, err := serverbuild.FindRoot()
		Expect(err).NotTo(HaveOccurred())
		servers, err := serverbuild.Find(serverbuild.Options{Root: root})
		Expect(err).NotTo(HaveOccurred())
		guard, err = process.NewGuard("pod-test-")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(guard.Close)
		plane, err := env.StartControlPlane(env.ControlPlaneOptions{Servers: servers, Guard: guard})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(plane.Stop)
		admin, err = client.New(plane.Config(), client.Options{})
		Expect(err).NotTo(HaveOccurred())
		kubectl := filepath.Join(guard.Dir(), "kubectl-once")
		script := "#!/bin/sh\n" + servers.Kubectl() + " \"$@\"\nexec sleep 600\n"
		Expect(os.WriteFile(kubectl, []byte(script), 0o700)).To(Succeed())
		var stop func()
		runner, stop = Start(Options{
			Client: admin, Config: plane.Config(), Guard: guard, StatefulSet: key,
			Programs: map[string]string{"registry.example.com:5000/shell:v1": "/bin/sh", "kubectl:v1": kubectl},
			Output:   GinkgoWriter,
		})
		DeferCleanup(stop)
	})

	status := func(ctx context.Context) (appsv1.StatefulSetStatus, error) {
		set := &appsv1.StatefulSet{}
		err := admin.Get(ctx, key, set)
		return set.Status, err
	}
	create := func(ctx context.Context, objects ...client.Object) {
		GinkgoHelper()
		for _, object := range objects {
			object.SetNamespace(key.Namespace)
			object.SetName(key.Name)
			Expect(admin.Create(ctx, object)).To(Succeed())
		}
	}

	object := func(ctx context.Context) (*corev1.Pod, error) {
		pod := &corev1.Pod{}
		err := admin.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Name + "-0"}, pod)
		return pod, client.IgnoreNotFound(err)
	}

	It("waits for what it mounts", func(ctx SpecContext) {
		set := &appsv1.StatefulSet{}
		Expect(yaml.UnmarshalStrict([]byte(statefulSetYAML), set)).To(Succeed())
		create(ctx, &corev1.ServiceAccount{}, set)
		Eventually(status).WithContext(ctx).Should(And(
			HaveField("ObservedGeneration", Equal(int64(1))), HaveField("Replicas", Equal(int32(1))), HaveField("ReadyReplicas", BeZero())))
		Consistently(runner.Log).WithArguments("main").WithTimeout(300 * time.Millisecond).Should(BeEmpty())
	})

	It("runs its containers as the template says, and becomes ready", func(ctx SpecContext) {
		create(ctx,
			&corev1.ConfigMap{Data: map[string]string{"web.conf": "data_dir: /data/files"}},
			&corev1.Secret{StringData: map[string]string{"password": "p1"}})
		Eventually(status).WithContext(ctx).Should(And(
			HaveField("ReadyReplicas", Equal(int32(1))), HaveField("UpdatedReplicas", Equal(int32(1))), HaveField("CurrentReplicas", Equal(int32(1)))))
		Eventually(runner.Log).WithArguments("main").Should(ContainSubstring("ns=default generation=1 pass=p1 starts=1 marks=1"))
		Eventually(runner.Log).WithArguments("main").Should(ContainSubstring("data_dir: " + runner.HostPath("main", "/data/files")))
		now, err := status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(now.CurrentRevision).To(Equal(now.UpdateRevision))
		Eventually(object).WithContext(ctx).Should(And(
			HaveField("Labels", And(HaveKeyWithValue("app", "web"), HaveKeyWithValue(appsv1.ControllerRevisionHashLabelKey, now.UpdateRevision))),
			HaveField("Status.ContainerStatuses", And(HaveLen(2), HaveEach(HaveField("Ready", BeTrue()))))))
	})

	It("acts with the rights of its ServiceAccount", func() {
		Eventually(runner.Log).WithArguments("client").Should(ContainSubstring(`User "system:serviceaccount:default:web" cannot`))
		Expect(os.ReadFile(runner.HostPath("client", "/var/run/secrets/kubernetes.io/serviceaccount/namespace"))).To(BeEquivalentTo("default"))
	})

	It("has a container started again that ended", func(ctx SpecContext) {
		Expect(os.WriteFile(filepath.Join(runner.HostPath("main", "/scratch"), "end"), nil, 0o600)).To(Succeed())
		Eventually(runner.Log).WithArguments("main").Should(ContainSubstring("starts=2 marks=2"))
		Eventually(object).WithContext(ctx).Should(HaveField("Status.ContainerStatuses", ContainElement(And(
			HaveField("Name", "main"), HaveField("RestartCount", Equal(int32(1))),
			HaveField("LastTerminationState.Terminated", And(HaveField("ExitCode", Equal(int32(7))), HaveField("Message", ContainSubstring("ns=default generation=1"))))))))
	})

	It("is replaced when the template changes: claims stay, the rest is new", func(ctx SpecContext) {
		before, err := status(ctx)
		Expect(err).NotTo(HaveOccurred())
		old := runner.HostPath("main", "/scratch")
		// The runner writes the status meanwhile.
		Expect(retry.RetryOnConflict(retry.DefaultRetry, func() error {
			set := &appsv1.StatefulSet{}
			if err := admin.Get(ctx, key, set); err != nil {
				return err
			}
			set.Spec.Template.Spec.Containers[0].Env[1].Value = "2"
			return admin.Update(ctx, set)
		})).To(Succeed())
		Eventually(runner.Log).WithArguments("main").Should(ContainSubstring("generation=2 pass=p1 starts=3 marks=1"))
		Eventually(status).WithContext(ctx).Should(And(
			HaveField("UpdateRevision", Not(Equal(before.UpdateRevision))), HaveField("ReadyReplicas", Equal(int32(1))),
			HaveField("ObservedGeneration", Equal(int64(2)))))
		Expect(old).NotTo(BeADirectory())
		Expect(strings.HasPrefix(old, guard.Dir())).To(BeTrue())
	})

	scale := func(ctx context.Context, replicas int) {
		GinkgoHelper()
		set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		patch := fmt.Sprintf(`{"spec":{"replicas":%d}}`, replicas)
		Expect(admin.Patch(ctx, set, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
	}

	It("is stopped for no replicas", func(ctx SpecContext) {
		process := runner.Process("main")
		Expect(process).NotTo(BeNil())
		scale(ctx, 0)
		Eventually(process.Exited()).Should(BeClosed())
		Expect(process.ExitCode()).To(Equal(0))
		Eventually(status).WithContext(ctx).Should(HaveField("Replicas", BeZero()))
		Eventually(object).WithContext(ctx).Should(HaveField("UID", BeEmpty()), "there is no Pod object either")
	})

	It("is started for a replica, also when the one before is still being stopped", func(ctx SpecContext) {
		scale(ctx, 1)
		Eventually(func() any { return runner.Process("main") }).ShouldNot(BeNil())
		process := runner.Process("main")
		scale(ctx, 0)
		// The container has got its signal by the time that it has ended; the other
		// one may still run.
		Eventually(process.Exited()).Should(BeClosed())
		scale(ctx, 1)
		Eventually(func() any { return runner.Process("main") }).ShouldNot(BeNil())
		Eventually(status).WithContext(ctx).Should(HaveField("ReadyReplicas", Equal(int32(1))))
	})

	It("is stopped when the StatefulSet is deleted", func(ctx SpecContext) {
		process := runner.Process("main")
		Expect(process).NotTo(BeNil())
		Expect(admin.Delete(ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}})).To(Succeed())
		Eventually(process.Exited()).Should(BeClosed())
	})
})
