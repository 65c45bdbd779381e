// kube-scheduler-judge answers, with kube-scheduler's own filter plugins in process, whether pods may go onto nodes.
//
//	stdin, a job per line:   {"id": …, "objects": […], "steps": [one of the fields of Step each]}
//	stdout, an answer each:  {"id": …, "steps": [{"nodes": [[{"plugin": …, "reasons": […]}]]}], "error": …}
//
// Objects are taken as an API server would have stored them: defaulted, pods through the strategy and the validation of
// creation. An object that an API server would refuse is an error of the job. Jobs share nothing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/klog/v2"
)

// Job is one cluster with questions, which are answered in order.
type Job struct {
	ID      json.RawMessage   `json:"id"`
	Objects []json.RawMessage `json:"objects"`
	Steps   []Step            `json:"steps"`
}

// Step is one change or question; exactly one field is set.
type Step struct {
	// Add makes a node join; pods of the cluster's DaemonSets start on it as their controller has it.
	Add json.RawMessage `json:"add,omitempty"`
	// Bare makes a node join on which nothing starts.
	Bare json.RawMessage `json:"bare,omitempty"`
	// Remove takes a node away; its pods wait.
	Remove string `json:"remove,omitempty"`
	// Place asks all filters for a pod and a node, and puts the pod there whatever they say.
	Place *Place `json:"place,omitempty"`
	// Ask asks all filters for a pod and nodes that are only thought of, each by itself; they carry their DaemonSets' pods.
	Ask *Ask `json:"ask,omitempty"`
	// AskThere asks all filters for a pod and nodes of the cluster, each by itself.
	AskThere *AskThere `json:"ask_there,omitempty"`
}

// Place is a pod (namespace/name) with its node (by name).
type Place struct {
	Pod  string `json:"pod"`
	Node string `json:"node"`
}

// Ask is a pod (namespace/name) with nodes that do not exist.
type Ask struct {
	Pod   string            `json:"pod"`
	Nodes []json.RawMessage `json:"nodes"`
}

// AskThere is a pod (namespace/name) with nodes by name.
type AskThere struct {
	Pod   string   `json:"pod"`
	Nodes []string `json:"nodes"`
}

// Answer has one element for every step.
type Answer struct {
	ID    json.RawMessage `json:"id"`
	Steps []StepAnswer    `json:"steps"`
	Error string          `json:"error,omitempty"`
}

// StepAnswer lists, for each node that was asked for, every plugin that refuses.
type StepAnswer struct {
	Nodes []Refusals `json:"nodes,omitempty"`
}

// Refusals are those of one node; none means that every filter accepts.
type Refusals []Refusal

// Refusal is one plugin with what it says.
type Refusal struct {
	Plugin  string   `json:"plugin"`
	Reasons []string `json:"reasons"`
}

func main() {
	klog.LogToStderr(false)
	klog.SetOutput(discard{})
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 256<<20)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	for in.Scan() {
		var job Job
		answer := Answer{}
		if err := json.Unmarshal(in.Bytes(), &job); err != nil {
			answer.Error = fmt.Sprintf("the job: %v", err)
		} else {
			answer.ID = job.ID
			answer.Steps, err = judge(&job)
			if err != nil {
				answer.Error = err.Error()
			}
		}
		if err := encoder.Encode(answer); err != nil {
			fmt.Fprintln(os.Stderr, "kube-scheduler-judge:", err)
			os.Exit(1)
		}
		// Whoever asks may wait for this answer before it asks on.
		if err := out.Flush(); err != nil {
			fmt.Fprintln(os.Stderr, "kube-scheduler-judge:", err)
			os.Exit(1)
		}
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "kube-scheduler-judge:", err)
		os.Exit(1)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
