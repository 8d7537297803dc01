"""Features: from declared aggregations to one row per user and date. The package knows no configuration.

``declare`` has the declarations, the plan and the manifest; ``states`` has the partial aggregates; ``operations`` has
what can be declared; ``kernel`` computes one partition of users with numpy; ``spark`` runs the kernel on Spark. A state
knows no operation, an operation no plan, and none of them Spark.
"""
