package headscale_test

import (
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// What a reverse proxy answers in place of Headscale is no refusal, of which nothing would be tried
// again: it is no answer. The same statuses with a problem are Headscale's own.
var _ = DescribeTable("A reverse proxy in front of Headscale that answers with", func(ctx SpecContext, status int, contents, body string, unavailable bool) {
	client := newClient(serveHTTP(reply(status, contents, body)))
	_, err := client.CreateUser(ctx, headscale.NewUser{Name: "alice"})
	Expect(err).To(HaveOccurred())
	if unavailable {
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		Expect(err).NotTo(MatchError(headscale.ErrRefused))
	} else {
		Expect(err).NotTo(MatchError(headscale.ErrUnavailable))
	}
	AddReportEntry(http.StatusText(status), err.Error())
},
	Entry("421, as the admin endpoint does since a downgrade to gRPC", 421, "text/plain; charset=utf-8", "the running Headscale does not speak this protocol", true),
	Entry("502", 502, "text/plain", "Bad Gateway", true),
	Entry("502 and a page", 502, "text/html", "<h1>Bad Gateway</h1>", true),
	Entry("502 and nothing", 502, "", "", true),
	Entry("503", 503, "text/plain", "no healthy upstream", true),
	Entry("504", 504, "text/html", "<h1>Gateway Timeout</h1>", true),
	Entry("504 and JSON that is no problem", 504, "application/json", `{"message":"timeout"}`, true),
	Entry("500", 500, "text/html", "<h1>oops</h1>", false),
	Entry("400", 400, "text/html", "<h1>Bad Request</h1>", false),
	Entry("403", 403, "text/html", "<h1>Forbidden</h1>", false),
	Entry("a problem of Headscale with the same status", 503, plainProblem, `{"status":503,"detail":"database is locked"}`, false),
)
