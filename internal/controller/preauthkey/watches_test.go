package preauthkey

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/internal/rotation/rotationtest"
)

// An object is reconciled when its key changes, also where the cache does not have the status yet that names it.
func TestKeyOfAnObjectDiffers(t *testing.T) {
	object := &v1beta1.HeadscalePreAuthKey{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "1"}}
	for status, known := range map[string]struct {
		id  uint64
		tag rotation.Tag
	}{
		"with a status":                 {7, firstTag(object)},
		"without a status":              {0, firstTag(object)},
		"without a status, second tag":  {0, secondTag(object)},
		"with a status, of another tag": {7, rotation.NewTag("other")},
	} {
		object.Status.KeyID = known.id
		for name, test := range map[string]struct {
			change  func(key *headscale.PreAuthKey)
			differs bool
		}{
			"nothing":                 {change: func(*headscale.PreAuthKey) {}},
			"the list hides the text": {change: func(key *headscale.PreAuthKey) { key.Key = headscale.NewKey(keyIntro + "abcdefghijkl-***") }},
			"a node has used it":      {change: func(key *headscale.PreAuthKey) { key.Used = true }, differs: true},
			"it has another user":     {change: func(key *headscale.PreAuthKey) { key.UserID = 2 }, differs: true},
			"another one has its id":  {change: func(key *headscale.PreAuthKey) { key.Key = textOf("mnopqrstuvwx") }, differs: true},
			"somebody has expired it": {change: func(key *headscale.PreAuthKey) { key.Expiration = &rotationtest.Noon }, differs: true},
			"somebody has deleted it": {change: nil, differs: true},
		} {
			t.Run(name+" "+status, func(t *testing.T) {
				expiration := known.tag.Expiration(rotationtest.Noon.Add(time.Hour))
				key := headscale.PreAuthKey{ID: 7, UserID: 1, Key: textOf("abcdefghijkl"), Expiration: &expiration}
				before, after := instance.NewSnapshot().WithKeys(key), instance.NewSnapshot().WithKeys()
				if test.change != nil {
					test.change(&key)
					after = after.WithKeys(key)
				}
				NewWithT(t).Expect(differs(object, before, after)).To(Equal(test.differs))
			})
		}
	}
}
