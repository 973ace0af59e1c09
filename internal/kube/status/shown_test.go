package status

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// hostile is a sentence with what a user wrote into a spec to deceive a terminal or a reader.
const hostile = "spec.x has \x1b[31mred\x1b[0m, \u202eback\u2066wards,\nanother line and \u200bnothing"

// shown is what of it may be shown.
const shown = "spec.x has red, backwards, another line and nothing"

// notes takes the notes of events.
type notes []string

func (n *notes) Eventf(_, _ runtime.Object, _, _, _, note string, arguments ...any) {
	*n = append(*n, fmt.Sprintf(note, arguments...))
}

func TestWhatIsShown(t *testing.T) {
	g := NewWithT(t)
	var conditions []metav1.Condition
	Set(&conditions, "Ready", False("InvalidConfig", hostile), 1, time.Now())
	g.Expect(conditions).To(ConsistOf(HaveField("Message", shown)))
	var recorded notes
	Record(&recorded, nil, Event{Note: hostile})
	g.Expect(recorded).To(ConsistOf(shown))
}
