package v1beta1

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestReplicaIsKeptToTheLetter(t *testing.T) {
	for name, text := range map[string]string{
		"known fields":   `{"type":"s3","bucket":"b","path":"p"}`,
		"unknown fields": `{"type":"sftp","path":"p","sync-interval":"5s","concurrent-writes":false,"later":{"a":[1,2.5]}}`,
		"other letters":  `{"type":"s3","Path":"q"}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var replica BackupReplica
			g.Expect(json.Unmarshal([]byte(text), &replica)).To(Succeed())
			g.Expect(json.Marshal(replica)).To(BeEquivalentTo(text))
			g.Expect(json.Marshal(*replica.DeepCopy())).To(BeEquivalentTo(text))
			document, err := replica.Document()
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(document).To(HaveKeyWithValue("type", replica.Type))
		})
	}
	g := NewWithT(t)
	g.Expect(json.Marshal(BackupReplica{Type: "file", Path: "/p"})).To(BeEquivalentTo(`{"type":"file","path":"/p"}`))
}

// TestDefaultImageIsTheOneThatIsTested has the default image and the program of the tests be of one
// release.
func TestDefaultImageIsTheOneThatIsTested(t *testing.T) {
	g := NewWithT(t)
	module, err := os.ReadFile(filepath.Join("..", "..", "test", "servers", "litestream", "go.mod"))
	g.Expect(err).NotTo(HaveOccurred())
	release := strings.TrimPrefix(DefaultBackupImage, "litestream/litestream:")
	g.Expect(string(module)).To(ContainSubstring("github.com/benbjohnson/litestream v" + release + " "))
}
