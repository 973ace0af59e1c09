package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
)

const conflictMessage = "Secret headscale-api-key is that of Headscale first"

// taken says that another Headscale has the Secret.
var taken = says(
	condition(v1beta1.ConditionReady, false, v1beta1.ReasonConflict, conflictMessage),
	condition(v1beta1.ConditionAPIKeyReady, false, v1beta1.ReasonConflict, conflictMessage))

// renamed names another Secret, which the operator has not seen.
func renamed(h *v1beta1.Headscale) { h.Spec.APIKey.SecretName = "new" }

// seenAsNamed is what the operator says when it has.
func seenAsNamed(h *v1beta1.Headscale) { h.Status.APIKey.SecretName = "new" }

// managed turns the API Key Manager on again, which the operator has not seen.
func managed(h *v1beta1.Headscale) { h.Spec.APIKey.AutoManage = nil }

// ownedBy gives a Secret to the Headscale of some UID.
func ownedBy(view secretView, uid types.UID) secretView {
	view.metadata.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: "else", UID: "89ab"},
		{APIVersion: v1beta1.GroupVersion.String(), Kind: v1beta1.Kind, Name: "first", UID: uid},
	}
	return view
}

func TestKeyStates(t *testing.T) {
	expires := func(offset time.Duration) secretView {
		return secretOf(map[string]string{v1beta1.AnnotationExpiration: now.Add(offset).Format(time.RFC3339Nano)})
	}
	for name, test := range map[string]struct {
		headscale *v1beta1.Headscale
		secret    secretView
		state     keystate.State
	}{
		"valid":                          {headscaleNamed("a"), secretOf(nil), keystate.Valid},
		"due, and about to be replaced":  {headscaleNamed("a"), expires(80*day - keystate.OverdueAfter + 1), keystate.Valid},
		"overdue":                        {headscaleNamed("a"), expires(80*day - keystate.OverdueAfter), keystate.Overdue},
		"a nanosecond before its end":    {headscaleNamed("a"), expires(1), keystate.Overdue},
		"expired":                        {headscaleNamed("a"), expires(0), keystate.Expired},
		"not rotated":                    {headscaleNamed("a", unmanaged), expires(1), keystate.Valid},
		"no Secret":                      {headscaleNamed("a"), secretView{}, keystate.Missing},
		"a Secret without a key":         {headscaleNamed("a"), secretOf(map[string]string{v1beta1.AnnotationExpiration: ""}), keystate.Missing},
		"an expiration that is none":     {headscaleNamed("a"), secretOf(map[string]string{v1beta1.AnnotationExpiration: "soon"}), keystate.Missing},
		"another's Secret":               {headscaleNamed("a"), foreignSecret(), keystate.NotOurs},
		"another Headscale's Secret":     {headscaleNamed("a", taken), secretOf(nil), keystate.NotOurs},
		"one that goes with it":          {headscaleNamed("a"), ownedBy(secretOf(nil), "0123"), keystate.Valid},
		"not rotated, and its own":       {headscaleNamed("a", unmanaged), ownedBy(secretOf(nil), "0123"), keystate.Valid},
		"not rotated, and another's":     {headscaleNamed("a", unmanaged), ownedBy(secretOf(nil), "4567"), keystate.NotOurs},
		"not ready, and another's":       {headscaleNamed("a", crashing...), ownedBy(secretOf(nil), "4567"), keystate.NotOurs},
		"handed over by another":         {headscaleNamed("a"), ownedBy(secretOf(nil), "4567"), keystate.Valid},
		"another name, another's Secret": {headscaleNamed("a", renamed), ownedBy(secretOf(nil), "4567"), keystate.NotOurs},
		"another name, and not seen":     {headscaleNamed("a", renamed), secretOf(nil), keystate.Unknown},
		"managed again, and not seen":    {headscaleNamed("a", unmanaged, managed), secretOf(nil), keystate.Unknown},
		"managed again, without a key":   {headscaleNamed("a", unmanaged, managed), secretView{}, keystate.Missing},
		"no rights":                      {headscaleNamed("a"), secretView{forbidden: true}, keystate.Valid},
		"no rights and another's Secret": {headscaleNamed("a", taken), secretView{forbidden: true}, keystate.NotOurs},
		"no rights and nothing is known": {headscaleNamed("a", unmanaged), secretView{forbidden: true}, keystate.Unknown},
		"no rights and another name":     {headscaleNamed("a", renamed), secretView{forbidden: true}, keystate.Unknown},
		"a conflict, and another change": {headscaleNamed("a", taken, func(h *v1beta1.Headscale) { h.Generation++ }), secretOf(nil), keystate.NotOurs},
		"a conflict, and another name":   {headscaleNamed("a", taken, renamed), secretOf(nil), keystate.Unknown},
		"a conflict that was resolved":   {headscaleNamed("a", renamed, seenAsNamed), secretOf(nil), keystate.Valid},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			key := describeKey(test.headscale, test.secret, now)
			g.Expect(key.State).To(Equal(test.state))
			complained := key.complaint(test.headscale) != ""
			g.Expect(complained).NotTo(Equal(key.usable()), "what cannot be used is complained of, and nothing else")
			g.Expect(key.Value).To(BeEmpty())
		})
	}
}

func TestProblems(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*v1beta1.Headscale)
		secret  secretView
		ready   bool
		problem string
	}{
		"none":      {func(*v1beta1.Headscale) {}, secretOf(nil), true, ""},
		"not seen":  {func(h *v1beta1.Headscale) { h.Status = v1beta1.HeadscaleStatus{ObservedGeneration: -1} }, secretView{}, false, "the operator has not observed it yet; " + whereOperator},
		"a change":  {func(h *v1beta1.Headscale) { h.Generation++ }, secretOf(nil), false, "the operator has not observed the last change yet; " + whereOperator},
		"deleted":   {func(h *v1beta1.Headscale) { gone := at(0); h.DeletionTimestamp = &gone }, secretOf(nil), false, "it is being deleted"},
		"not ready": {says(condition(v1beta1.ConditionReady, false, v1beta1.ReasonScaledToZero, "Headscale is stopped\nnow")), secretOf(nil), false, "ScaledToZero: Headscale is stopped now"},
		"a warning": {says(condition(v1beta1.ConditionReady, true, v1beta1.ReasonReady, "Headscale is running with the desired configuration; but config.oidc has a secret in plain text")), secretOf(nil), true, "config.oidc has a secret in plain text"},
		"no manager for the key": {says(condition(v1beta1.ConditionReady, true, v1beta1.ReasonManagerFailing, "The API Key Manager is crash-looping")), secretOf(nil), true,
			"ManagerFailing: The API Key Manager is crash-looping"},
		"expired, and the operator is away": {func(*v1beta1.Headscale) {}, secretOf(map[string]string{v1beta1.AnnotationExpiration: "2026-11-27T11:00:00Z"}), false,
			"the API key in Secret headscale-api-key expired at 2026-11-27T11:00:00Z and was not replaced; kubectl logs -n default a-0 -c apikey-manager tells why"},
		"overdue, and the operator is away": {func(*v1beta1.Headscale) {}, secretOf(map[string]string{v1beta1.AnnotationExpiration: "2026-11-28T12:00:00Z"}), true,
			"the API key should have been replaced at 2026-09-09T12:00:00Z; kubectl logs -n default a-0 -c apikey-manager tells why"},
		"another's Secret": {func(*v1beta1.Headscale) {}, foreignSecret(), false,
			"Secret headscale-api-key was not created by the API Key Manager and is left alone: delete it, or set spec.api_key.secret_name to another name"},
		"not managed, and without a key": {unmanaged, secretView{}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			report := describe(headscaleNamed("a", test.change), podView{}, test.secret, now)
			g.Expect(report.Problem).To(Equal(test.problem))
			g.Expect(report.Ready).To(Equal(test.ready))
		})
	}
}

func TestStoredKey(t *testing.T) {
	const value = "hskey-api-9ac3e6a37ae0-secret"
	digest := sha256.Sum256([]byte(value))
	noted := hex.EncodeToString(digest[:])
	for name, test := range map[string]struct {
		data   map[string][]byte
		digest string
		refuse string
	}{
		"as it was stored": {map[string][]byte{v1beta1.SecretDataKey: []byte(value)}, noted, ""},
		"without a digest": {map[string][]byte{v1beta1.SecretDataKey: []byte(value)}, "", ""},
		"an older release": {map[string][]byte{v1beta1.SecretDataKey: []byte("Kazn4vL.aRo2L-_aaaaaaaaaaaaaaaaaaaaaaaaa")}, "", ""},
		"with an escape":   {map[string][]byte{v1beta1.SecretDataKey: []byte(value + "\x1b[2J")}, "", "is no API key"},
		"with a newline":   {map[string][]byte{v1beta1.SecretDataKey: []byte(value + "\n")}, "", "is no API key"},
		"two words":        {map[string][]byte{v1beta1.SecretDataKey: []byte(value + " x")}, "", "is no API key"},
		"not in ASCII":     {map[string][]byte{v1beta1.SecretDataKey: []byte(value + "\u202e")}, "", "is no API key"},
		"changed":          {map[string][]byte{v1beta1.SecretDataKey: []byte(value + "x")}, noted, "somebody changed it"},
		"taken out":        {nil, noted, "has no entry api-key"},
		"emptied":          {map[string][]byte{v1beta1.SecretDataKey: {}}, noted, "has no entry api-key"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := storedKey(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Annotations: map[string]string{v1beta1.AnnotationKeyDigest: test.digest}}, Data: test.data})
			if test.refuse == "" {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(got).To(BeEquivalentTo(test.data[v1beta1.SecretDataKey]))
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(test.refuse)))
			g.Expect(err.Error()).NotTo(ContainSubstring(value))
			g.Expect(got).To(BeEmpty())
		})
	}
}

func TestStagesOfARotation(t *testing.T) {
	const request, old, renewed = "2026-11-27T12:00:00.1Z", "9ac3e6a37ae0", "31b0b7c1e2d4"
	asked := func(value string) func(*v1beta1.Headscale) {
		return func(h *v1beta1.Headscale) {
			h.Annotations = map[string]string{v1beta1.AnnotationRotateRequestedAt: value}
		}
	}
	delay := func(h *v1beta1.Headscale) { h.Spec.APIKey.RevocationDelay = "5m" }
	told := func(request, prefix string) func(*v1beta1.Headscale) {
		return func(h *v1beta1.Headscale) {
			h.Status.APIKey.LastRotationRequest, h.Status.APIKey.KeyPrefix = request, prefix
		}
	}
	secret := func(requested, handled, retiring string) secretView {
		return secretOf(map[string]string{v1beta1.AnnotationRotateRequestedAt: requested, v1beta1.AnnotationRotateHandled: handled, v1beta1.AnnotationRetiring: retiring})
	}
	noRights := secretView{forbidden: true}
	for name, test := range map[string]struct {
		headscale *v1beta1.Headscale
		secret    secretView
		want      stage
	}{
		"asked":                             {headscaleNamed("a", asked(request)), secret("", "", ""), stageAsked},
		"an earlier request was handled":    {headscaleNamed("a", asked(request)), secret("earlier", "earlier", ""), stageAsked},
		"forwarded":                         {headscaleNamed("a", asked(request)), secret(request, "earlier", ""), stageForwarded},
		"stored":                            {headscaleNamed("a", asked(request)), secret(request, request, old+"@2026-11-27T12:00:00Z"), stageStored},
		"another key is retiring":           {headscaleNamed("a", asked(request)), secret(request, request, "0123456789ab@2026-11-27T12:00:00Z"), stageDone},
		"revoked":                           {headscaleNamed("a", asked(request)), secret(request, request, ""), stageDone},
		"to be revoked later":               {headscaleNamed("a", asked(request), delay), secret(request, request, old+"@2026-11-27T12:05:00Z"), stageDone},
		"another asked after this one":      {headscaleNamed("a", asked("later")), secret("later", "", ""), stageForwarded},
		"that of another was carried out":   {headscaleNamed("a", asked("later")), secret("later", "later", ""), stageDone},
		"the annotation was taken away":     {headscaleNamed("a"), secret("", "", ""), stageAsked},
		"no Secret":                         {headscaleNamed("a", asked(request)), secretView{}, stageAsked},
		"another's Secret":                  {headscaleNamed("a", asked(request)), foreignSecret(), stageAsked},
		"no rights: asked":                  {headscaleNamed("a", asked(request), told("earlier", old)), noRights, stageAsked},
		"no rights: forwarded":              {headscaleNamed("a", asked(request), told(request, old)), noRights, stageForwarded},
		"no rights: done":                   {headscaleNamed("a", asked(request), told(request, renewed)), noRights, stageDone},
		"no rights: not looked at":          {headscaleNamed("a", asked(request), unmanaged), noRights, stageAsked},
		"no rights: a key of another cause": {headscaleNamed("a", asked(request), told("", renewed)), noRights, stageAsked},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRotation(headscaleNamed("a"), secretOf(nil), request)
			g := NewWithT(t)
			g.Expect(r.oldPrefix).To(Equal(old))
			g.Expect(r.stage(test.headscale, test.secret)).To(Equal(test.want))
		})
	}
}

func TestRefusedRotations(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*v1beta1.Headscale)
		refuse string
	}{
		"not managed":      {unmanaged, "the key of Headscale default/a is not rotated: set spec.api_key.auto_manage to true first"},
		"stopped":          {func(h *v1beta1.Headscale) { none := int32(0); h.Spec.Replicas = &none }, "the Headscale default/a is stopped, so that it cannot make a key: set spec.replicas to 1 first"},
		"being deleted":    {func(h *v1beta1.Headscale) { gone := at(0); h.DeletionTimestamp = &gone }, "the Headscale default/a is being deleted"},
		"another's Secret": {taken, conflictMessage},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(refuseRotation(headscaleNamed("a", test.change))).To(MatchError(test.refuse))
		})
	}
	NewWithT(t).Expect(refuseRotation(headscaleNamed("a"))).To(Succeed())
}

func TestObstacles(t *testing.T) {
	pending := says(condition(v1beta1.ConditionAPIKeyReady, false, v1beta1.ReasonKeyPending, "No API key is in Secret headscale-api-key yet"))
	crashed := podOf("a", runs("headscale"), waits(managerContainer, "CrashLoopBackOff"))
	fine := podOf("a", runs("headscale"), runs(managerContainer))
	starting := podOf("a")
	starting.pod.Status.Phase = corev1.PodPending
	for name, test := range map[string]struct {
		reached   stage
		headscale *v1beta1.Headscale
		secret    secretView
		pod       podView
		words     string
	}{
		"the operator never looked":  {stageAsked, headscaleNamed("a", func(h *v1beta1.Headscale) { h.Status = v1beta1.HeadscaleStatus{} }), secretView{}, podView{}, "the operator has not observed this Headscale"},
		"the operator went away":     {stageAsked, headscaleNamed("a"), secretOf(nil), fine, "the operator did not forward the request to Secret headscale-api-key, so it does not seem to run; " + whereOperator},
		"there is no key yet":        {stageAsked, headscaleNamed("a", pending), secretView{}, fine, "No API key is in Secret headscale-api-key yet"},
		"the Secret was deleted":     {stageAsked, headscaleNamed("a"), secretView{}, fine, "Secret headscale-api-key is gone"},
		"the Secret is another's":    {stageAsked, headscaleNamed("a"), foreignSecret(), fine, "was not created by the API Key Manager"},
		"Headscale crashes":          {stageForwarded, headscaleNamed("a", crashing...), secretOf(nil), fine, "Headscale in pod headscale-0 is crash-looping"},
		"the manager crashes":        {stageForwarded, headscaleNamed("a"), secretOf(nil), crashed, "the API Key Manager in pod a-0 does not run (CrashLoopBackOff)"},
		"there is no pod":            {stageForwarded, headscaleNamed("a"), secretOf(nil), podView{}, "there is no pod a-0"},
		"the pod does not start":     {stageForwarded, headscaleNamed("a"), secretOf(nil), starting, "pod a-0 has not started"},
		"the operator sees why":      {stageForwarded, headscaleNamed("a", says(condition(v1beta1.ConditionAPIKeyReady, true, v1beta1.ReasonManagerFailing, "The API Key Manager cannot start: failed to pull image manager:v1: ErrImagePull"))), secretOf(nil), podView{forbidden: true}, "The API Key Manager cannot start: failed to pull image manager:v1: ErrImagePull"},
		"nothing is seen":            {stageForwarded, headscaleNamed("a"), secretOf(nil), fine, "kubectl logs -n default a-0 -c apikey-manager tells why"},
		"the old key is not revoked": {stageStored, headscaleNamed("a"), secretOf(nil), fine, "kubectl logs -n default a-0 -c apikey-manager tells why"},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(obstacle(test.reached, observation{test.headscale, test.secret}, test.pod)).To(ContainSubstring(test.words))
		})
	}
}

func TestNames(t *testing.T) {
	g := NewWithT(t)
	for _, argument := range []string{"a", "hs/a", "headscale/a", "headscales/a", "headscale.headscale.infrado.cloud/a"} {
		g.Expect(headscaleName(argument)).To(Equal("a"), argument)
	}
	for _, argument := range []string{"", "hs/", "pod/a", "hs/a/b", "/a"} {
		_, err := headscaleName(argument)
		status, sentence := outcome(context.Background(), err)
		g.Expect(status).To(Equal(ExitUsage), argument)
		g.Expect(sentence).To(ContainSubstring("is not the NAME of a Headscale"), argument)
	}
	_, err := theOnly(nil, "ns")
	g.Expect(err).To(MatchError("there is no Headscale in namespace ns; -n names another namespace"))
	_, err = theOnly([]v1beta1.Headscale{*headscaleNamed("b"), *headscaleNamed("a")}, "ns")
	g.Expect(err).To(MatchError("namespace ns has 2 Headscales, so say which one: a, b"))
}

func TestExplanations(t *testing.T) {
	headscales := schema.GroupResource{Group: v1beta1.GroupName, Resource: "headscales"}
	for name, test := range map[string]struct {
		err   error
		words string
	}{
		"no such kind": {apierrors.NewGenericServerResponse(http.StatusNotFound, "get", headscales, "a", "404 page not found", 0, true), "install the operator first"},
		"no such name": {apierrors.NewNotFound(headscales, "a"), `headscales.headscale.infrado.cloud "a" not found`},
		"forbidden":    {fmt.Errorf("looking: %w", apierrors.NewForbidden(headscales, "a", errors.New("no"))), `you are not allowed to do this: headscales.headscale.infrado.cloud "a" is forbidden: no`},
		"unauthorized": {apierrors.NewUnauthorized("who?"), "log in again"},
		"no server":    {&url.Error{Op: "Get", URL: "https://10.0.0.1:6443/apis", Err: errors.New("connection refused")}, "the API server does not answer: connection refused"},
		"no cluster":   {&url.Error{Op: "Get", URL: "http://localhost:8080/apis", Err: errors.New("connection refused")}, "no kubeconfig says where the cluster is"},
		"no config":    {clientcmd.ErrEmptyConfig, "no kubeconfig says where the cluster is"},
		"another":      {errors.New("another"), "another"},
	} {
		t.Run(name, func(t *testing.T) {
			status, sentence := outcome(context.Background(), test.err)
			g := NewWithT(t)
			g.Expect(status).To(Equal(ExitFailure))
			g.Expect(sentence).To(ContainSubstring(test.words))
		})
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	status, _ := outcome(ended, context.Canceled)
	NewWithT(t).Expect(status).To(Equal(ExitInterrupted))
}

func TestInitContainersThatAreDoneDoNotCount(t *testing.T) {
	g := NewWithT(t)
	status := func(name string, ready bool, restarts int32, state corev1.ContainerState) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, Ready: ready, RestartCount: restarts, State: state}
	}
	ended := func(code int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "headscale-0"}, Status: corev1.PodStatus{
		Phase:                 corev1.PodRunning,
		InitContainerStatuses: []corev1.ContainerStatus{status("restore", false, 1, ended(0, "Completed")), status("restore-identity", false, 0, ended(1, "Error"))},
		ContainerStatuses:     []corev1.ContainerStatus{status("headscale", true, 0, running), status("apikey-manager", false, 2, ended(0, "Completed"))},
	}}
	report := &statusReport{Pod: describePod(pod)}
	g.Expect(report.Pod.Containers).To(HaveLen(4))
	g.Expect(podLine(report, report.Pod.CreatedAt.Time)).To(Equal(
		"headscale-0: Running for 0s, 1 of 3 containers ready, 3 restarts; restore-identity: Error; apikey-manager: Completed"))
}
