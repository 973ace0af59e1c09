package plugin

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// nodeReport is how a node of a tailnet is. Its texts are as Headscale has them, and some of them are
// the node's own.
type nodeReport struct {
	// Namespace and Headscale name the Headscale.
	Namespace string `json:"namespace"`
	Headscale string `json:"headscale"`
	ID        uint64 `json:"id"`
	// Name is unique in the tailnet, and Hostname is what the node calls itself.
	Name     string `json:"name"`
	Hostname string `json:"hostname"`
	// User is the owner of the node; from 0.28 on, a node with tags has none.
	User   string `json:"user,omitempty"`
	UserID uint64 `json:"userId,omitempty"`
	// Tags are those in force.
	Tags      []string `json:"tags"`
	Addresses []string `json:"addresses"`
	Online    bool     `json:"online"`
	// LastSeen is when it was connected last.
	LastSeen *metav1.Time `json:"lastSeen,omitempty"`
	// Expiry is when it has to log in again, and Expired whether that is past.
	Expiry    *metav1.Time `json:"expiry,omitempty"`
	Expired   bool         `json:"expired"`
	CreatedAt *metav1.Time `json:"createdAt,omitempty"`
	// PreAuthKeyID is the key that it registered with.
	PreAuthKeyID uint64 `json:"preAuthKeyId,omitempty"`
	// AvailableRoutes are those that it announces, ApprovedRoutes those that it may have, and
	// WaitingRoutes those that it announces and may not have.
	AvailableRoutes []string `json:"availableRoutes"`
	ApprovedRoutes  []string `json:"approvedRoutes"`
	WaitingRoutes   []string `json:"waitingRoutes"`
}

// describeNode says how a node is at some time.
func describeNode(hs *v1beta1.Headscale, n *headscale.Node, now time.Time) *nodeReport {
	report := &nodeReport{
		Namespace: hs.Namespace, Headscale: hs.Name, ID: n.ID, Name: n.GivenName, Hostname: n.Name, User: n.UserName, UserID: n.UserID,
		Tags: append([]string{}, n.Tags...), Addresses: append([]string{}, n.Addresses...), Online: n.Online,
		LastSeen: timeOrNil(n.LastSeen), Expiry: timeOrNil(n.Expiry), CreatedAt: timeOrNil(n.CreatedAt),
		Expired: n.Expiry != nil && !n.Expiry.After(now), PreAuthKeyID: n.PreAuthKeyID,
		AvailableRoutes: append([]string{}, n.AvailableRoutes...), ApprovedRoutes: append([]string{}, n.ApprovedRoutes...),
		WaitingRoutes: without(n.AvailableRoutes, n.ApprovedRoutes),
	}
	if n.UserID == headscale.TaggedDevicesID {
		report.User, report.UserID = "", 0
	}
	return report
}

// without are the texts of a list that another one does not have.
func without(list, other []string) []string {
	return slices.DeleteFunc(append([]string{}, list...), func(text string) bool { return slices.Contains(other, text) })
}

// timeOrNil is a time as the API has it.
func timeOrNil(t *time.Time) *metav1.Time {
	if t == nil {
		return nil
	}
	at := metav1.NewTime(*t)
	return &at
}

// String names a node so that it cannot be taken for another one.
func (n *nodeReport) String() string {
	about := fmt.Sprintf("id %d", n.ID)
	if n.User != "" {
		about += ", user " + n.User
	}
	if len(n.Tags) > 0 {
		about += ", " + strings.Join(n.Tags, ", ")
	}
	if len(n.Addresses) > 0 {
		about += ", " + n.Addresses[0]
	}
	if n.Online {
		about += ", online"
	}
	return oneLine(orDash(n.Name) + " (" + about + ")")
}

// showNodes prints nodes in a table.
func (s screen) showNodes(out io.Writer, nodes []*nodeReport, wide bool, now time.Time) {
	names := []string{"ID", "NAME", "USER", "ADDRESSES", "ONLINE", "LAST SEEN", "EXPIRY", "TAGS"}
	if wide {
		names = append(names, "HOST", "CREATED", "KEY", "ANNOUNCED")
	}
	rows := [][]cell{headings(append(names, "ROUTES", "WAITING")...)}
	for _, node := range nodes {
		rows = append(rows, node.row(wide, now))
	}
	s.table(out, rows)
}

// row is a node as a row of a table.
func (n *nodeReport) row(wide bool, now time.Time) []cell {
	expiry := n.expiry(now)
	cells := []cell{
		{fmt.Sprint(n.ID), plain}, {orDash(oneLine(n.Name)), plain}, {orDash(oneLine(n.User)), plain}, cellOfTexts(n.Addresses, plain), n.online(),
		{n.lastSeen(now), plain}, {expiry.text, expiry.as}, cellOfTexts(n.Tags, plain),
	}
	if wide {
		created, key := "-", "-"
		if n.CreatedAt != nil {
			created = instant(n.CreatedAt.Time)
		}
		if n.PreAuthKeyID != 0 {
			key = fmt.Sprint(n.PreAuthKeyID)
		}
		cells = append(cells, cell{orDash(oneLine(n.Hostname)), plain}, cell{created, plain}, cell{key, plain}, cellOfTexts(n.AvailableRoutes, plain))
	}
	return append(cells, cellOfTexts(n.ApprovedRoutes, plain), cellOfTexts(n.WaitingRoutes, yellow))
}

// cellOfTexts is a list in a table.
func cellOfTexts(texts []string, as style) cell {
	return cell{orDash(oneLine(strings.Join(texts, ","))), as}
}

// online is whether the node is connected.
func (n *nodeReport) online() cell {
	if n.Online {
		return cell{"true", green}
	}
	return cell{"false", plain}
}

// lastSeen is how long ago the node was connected.
func (n *nodeReport) lastSeen(now time.Time) string {
	switch {
	case n.Online:
		return "now"
	case n.LastSeen == nil:
		return "-"
	default:
		return span(now.Sub(n.LastSeen.Time)) + " ago"
	}
}

// expiry is when the node has to log in again.
func (n *nodeReport) expiry(now time.Time) cell {
	switch {
	case n.Expiry == nil:
		return cell{"never", plain}
	case n.Expired:
		return cell{"expired " + span(now.Sub(n.Expiry.Time)) + " ago", red}
	default:
		return cell{"in " + span(n.Expiry.Sub(now)), plain}
	}
}

// showNode prints how a node is in full.
func (s screen) showNode(out io.Writer, n *nodeReport, now time.Time) {
	state, expiry := cell{orDash(n.Name) + ": offline", plain}, n.expiry(now)
	if n.Online {
		state = cell{orDash(n.Name) + ": online", green}
	}
	if n.Expired {
		state.as = red
	}
	all := []field{
		{"Node", state.text, state.as}, {"Headscale", n.Namespace + "/" + n.Headscale, plain}, {"Id", fmt.Sprint(n.ID), plain}, {"Host", orDash(n.Hostname), plain},
		{"User", orDash(n.User), plain}, {"Tags", texts(n.Tags), plain}, {"Addresses", texts(n.Addresses), plain},
		{"Last seen", n.lastSeen(now), plain}, {"Expiry", since(n.Expiry, expiry.text), expiry.as},
	}
	if n.CreatedAt != nil {
		all = append(all, field{"Age", fmt.Sprintf("%s, since %s", span(now.Sub(n.CreatedAt.Time)), instant(n.CreatedAt.Time)), plain})
	}
	if n.PreAuthKeyID != 0 {
		all = append(all, field{"Key", fmt.Sprintf("pre-auth key %d", n.PreAuthKeyID), plain})
	}
	all = append(all, field{"Routes", texts(n.ApprovedRoutes), plain})
	if len(n.WaitingRoutes) > 0 {
		all = append(all, field{"Waiting", texts(n.WaitingRoutes), yellow})
	}
	for i := range all {
		all[i].text = oneLine(all[i].text)
	}
	s.fields(out, all)
}

// texts is a list in a sentence.
func texts(list []string) string { return orDash(strings.Join(list, ", ")) }

// since adds a time to how long ago that is.
func since(t *metav1.Time, ago string) string {
	if t == nil {
		return ago
	}
	return fmt.Sprintf("%s, at %s", ago, instant(t.Time))
}
