package projects

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/honeloop/hone/pkg/config"
)

// Alerts are what a project wants to be told, and where. Every alert goes to
// every webhook: those of the policy's alert action too.
type Alerts struct {
	// At most 5.
	Webhooks []Webhook `yaml:"webhooks"`
	// At most 50.
	Watch []Watch `yaml:"watch"`
}

// Webhook is an address that alerts are posted to. One of SecretEnv and
// SecretFile names where the secret is: it signs what is posted. Services read
// it when they need it, each line one, so that it can be replaced while both
// hold.
type Webhook struct {
	URL        string `yaml:"url"`
	SecretEnv  string `yaml:"secret_env"`
	SecretFile string `yaml:"secret_file"`
}

// Watch is a trend that is looked at. One of Above, Below and Change says when it
// alerts.
type Watch struct {
	// Unique within the project.
	Name string `yaml:"name"`
	// As in /v1/trends, such as "dissatisfaction" or "category:outdated".
	Metric string `yaml:"metric"`
	// Only interactions with these values of dimensions.
	Filter map[string]string `yaml:"filter"`
	// The rate of the window is above or below this.
	Above *float64 `yaml:"above"`
	Below *float64 `yaml:"below"`
	// "rise" or "fall": the rate moved away from that of the baseline.
	Change string `yaml:"change"`
	// Fewer to count say nothing: 50 where it is 0. In the window; with Change in
	// the baseline.
	MinCount int `yaml:"min_count"`
	// How long back the rate is of: an hour where it is 0.
	Window time.Duration `yaml:"window"`
	// How long it has to be so, with thresholds; at once where it is 0.
	For time.Duration `yaml:"for"`
	// "low", "medium", "high", "critical", or empty.
	Severity string `yaml:"severity"`
}

// MaxWebhooks of a project.
const MaxWebhooks = 5

const (
	maxWatches = 50
	maxWindow  = 31 * 24 * time.Hour
)

// WithDefaults is w with what it leaves out.
func (w Watch) WithDefaults() Watch {
	if w.MinCount == 0 {
		w.MinCount = 50
	}
	if w.Window == 0 {
		w.Window = time.Hour
	}
	return w
}

// Validate joins all that is wrong, each with its key.
func (a Alerts) Validate() error {
	var errs []error
	if len(a.Webhooks) > MaxWebhooks {
		errs = append(errs, fmt.Errorf("webhooks: %d, want at most %d", len(a.Webhooks), MaxWebhooks))
	}
	for i, w := range a.Webhooks {
		errs = append(errs, config.In(fmt.Sprintf("webhooks[%d]", i), w.validate()))
	}
	if len(a.Watch) > maxWatches {
		errs = append(errs, fmt.Errorf("watch: %d, want at most %d", len(a.Watch), maxWatches))
	}
	names := map[string]bool{}
	for i, w := range a.Watch {
		errs = append(errs, config.In(fmt.Sprintf("watch[%d]", i), w.validate()))
		if names[w.Name] {
			errs = append(errs, fmt.Errorf("watch[%d].name: %q is there twice", i, w.Name))
		}
		names[w.Name] = true
	}
	return errors.Join(errs...)
}

func (w Webhook) validate() error {
	var errs []error
	if u, err := url.Parse(w.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		errs = append(errs, errors.New("url: want https://host/path"))
	}
	if (w.SecretEnv == "") == (w.SecretFile == "") {
		errs = append(errs, errors.New("secret_env, secret_file: want one of them"))
	}
	return errors.Join(errs...)
}

func (w Watch) validate() error {
	errs := []error{config.At("metric", CheckMetric(w.Metric))}
	check := func(ok bool, message string) {
		if !ok {
			errs = append(errs, errors.New(message))
		}
	}
	check(w.Name != "" && len(w.Name) <= 200, "name: want 1 to 200 bytes")
	for d := range w.Filter {
		errs = append(errs, config.At("filter", CheckDimension(d)))
	}
	conditions := 0
	for _, t := range []*float64{w.Above, w.Below} {
		if t != nil {
			conditions++
			check(*t >= 0 && *t <= 1, "above, below: want a share from 0 to 1")
		}
	}
	if w.Change != "" {
		conditions++
		check(w.Change == "rise" || w.Change == "fall", "change: want rise or fall")
		check(w.For == 0 && w.Window == 0, "window, for: a change has none")
	}
	check(conditions == 1, "above, below, change: want one of them")
	check(w.MinCount >= 0, "min_count: want at least 0")
	check(w.Window >= 0 && w.Window <= maxWindow, "window: want at most 744h")
	check(w.For >= 0 && w.For <= maxWindow, "for: want at most 744h")
	check(slices.Contains([]string{"", "low", "medium", "high", "critical"}, w.Severity), "severity: want low, medium, high or critical")
	return errors.Join(errs...)
}

var (
	metrics    = regexp.MustCompile(`^(satisfaction|dissatisfaction|response|implicit|category:.{1,200})$`)
	dimensions = regexp.MustCompile(`^(user_role|environment|model|model_version|prompt_version|language|tag:.{1,200})$`)
)

// CheckMetric says which metrics trends have.
func CheckMetric(name string) error {
	if !metrics.MatchString(name) {
		return fmt.Errorf("%q: want satisfaction, dissatisfaction, category:NAME, response or implicit", shortened(name))
	}
	return nil
}

// CheckDimension says which dimensions trends have.
func CheckDimension(name string) error {
	if !dimensions.MatchString(name) {
		return fmt.Errorf("%q: want user_role, environment, model, model_version, prompt_version, language or tag:NAME", shortened(name))
	}
	return nil
}

// shortened keeps errors short.
func shortened(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
